"""The Ray under a job, and what its nodes hold."""
