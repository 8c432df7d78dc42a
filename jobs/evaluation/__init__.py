"""How good a model is: on a data set of the pipeline, and on tasks of lm-evaluation-harness."""
