"""Images of requests, kept with their answers for labelling; off unless the job asks for it."""
