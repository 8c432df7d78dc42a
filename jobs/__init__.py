"""The jobs that ship with the orchestrator: data, training, evaluation, export.

A job is a plain function of a context and its parameters. Jobs know models and data; they know no
pipeline and no cluster, and import nothing of the orchestrator but its two protocols,
`orchestrator.job` and `orchestrator.engine`.
"""
