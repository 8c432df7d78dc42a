"""Tokenised data that does not fit in memory: shards on disk or in a store, and rows of them.

From the bottom: `stored_files` (parts of files, wherever they lie), `shards` (the file format),
`token_folder` (a data set of shards), `sources` (documents of files), `preparation` (the job that
makes one of the other), `packing` (rows of documents), `joined_rows` (rows of several data sets),
`prefetch` (rows that are read before they are asked for), `training_data` (what training reads).
"""
