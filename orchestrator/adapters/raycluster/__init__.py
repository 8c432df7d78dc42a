"""Ray behind the port `Cluster`: a managed cluster, attempts as gangs, and its errors as values.

`managed_ray.py` starts and stops a cluster on this machine (`machine.py`), `access.py` joins one,
`cluster.py` is the port, `placement.py` and `gang.py` are one attempt, `this_worker.py` runs on
the pools, `stacks.py` looks at one. `process.py` knows the processes of workers,
`supervisor/orphans.py` ends what a dead one left running, `exit_codes.py` has it say with which
code it ended itself, and `postmortem.py` fetches what it left to read. `nodes.py` knows what there
is, and `resources.py` what fits; `node.py` is a node process, `ray_errors.py` alone translates
Ray's errors, `jobs.py` hands a controller over.
"""
