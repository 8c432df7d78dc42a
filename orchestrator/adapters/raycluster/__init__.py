"""Ray behind the port `Cluster`: a managed cluster, attempts as gangs, and its errors as values.

`service.py` starts and stops a cluster on this machine, `access.py` connects to one,
`cluster.py` is the port, `attempt.py` one attempt, `workers.py` what runs on the pools,
`nodes.py` what the cluster has, `failures.py` the one place where Ray's errors are translated,
`jobs.py` hands a controller to the cluster.
"""
