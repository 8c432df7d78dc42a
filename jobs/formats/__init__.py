"""Weights on disk: which formats there are, how they are read and how they are written.

schemes     what a format is: codes, scales, blocks
records     how a folder says which one it has, as other software knows it
modelslim   the same, for what reads folders on Ascend
rounding    powers of two, bit for bit
blocks      weights to codes and scales, and back
exported_generation  what a folder says of the answers of its model
headers     the safetensors format
tensor_parts  tensors whose parts stand in several files
hashed_file   a file that is hashed while it is written, in any order
safety        which files of a model folder are read
folder      a model folder, read row by row, refusing what is not safe or not whole
sink        safetensors files that are written row by row, in any order
choice      which weights of a model are quantised
tied_head   whether the head of a folder is its embeddings
conversion  a folder into another one in another format
"""
