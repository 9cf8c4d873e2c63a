"""The method's operators as Triton kernels, one small file each. Only `omnisink.maths` calls them.

Triton is imported with the files of this room, so nothing may import them before a tensor is where they run.
"""
