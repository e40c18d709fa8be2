"""What all kinds of job share: from a job file to a running job."""
