"""What any process on a node needs, of attempts and replicas: software, chips, secrets, jobs."""
