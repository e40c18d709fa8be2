"""What all kinds of job share, from the job file to execution."""
