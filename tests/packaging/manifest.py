"""The configuration out of a manifest: prints the tokend.toml of its ConfigMap."""

import sys

import yaml

with open(sys.argv[1]) as file:
    maps = [document for document in yaml.safe_load_all(file) if document["kind"] == "ConfigMap"]
print(maps[0]["data"]["tokend.toml"], end="")
