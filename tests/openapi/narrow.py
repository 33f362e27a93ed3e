"""Narrows the document (stdin to stdout) to what can be asked thousands of times.

Some parameters keep a client waiting on purpose, and one takes away the body that the checks
look at. All other freedom is left to Schemathesis.
"""

import json
import sys

document = json.load(sys.stdin)
parameters = document["components"]["parameters"]
# A long poll waits as long as it is told to.
parameters["Wait"]["schema"] = {"type": "string", "enum": ["0", "1ms", "0.002"]}
# `x-group-version` above what there is waits for a second, and is answered 503: rightly, but not
# what we look for here. After `return=minimal` there is neither body nor media type.
left_out = {"#/components/parameters/Floor", "#/components/parameters/Prefer"}
# Without `wait`, `version` waits for half a minute.
left_out.add("#/components/parameters/Version")
for item in document["paths"].values():
    for operation in item.values():
        if isinstance(operation, dict) and "parameters" in operation:
            operation["parameters"] = [
                parameter
                for parameter in operation["parameters"]
                if parameter.get("$ref") not in left_out
            ]
json.dump(document, sys.stdout)
