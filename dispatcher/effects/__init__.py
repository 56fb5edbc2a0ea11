"""The only place with network, processes and files: each module here makes one port real."""
