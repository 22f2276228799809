"""The messages and services of `controlplane.v1`, generated from `protos/` by `make protos`.

Nothing here is written by hand, and no file here knows of any other room.
"""
