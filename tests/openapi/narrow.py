"""Narrows the document (stdin to stdout) to what can be asked thousands of times.

Two parameters keep a client waiting on purpose, and one takes away the body that the checks
look at. All other freedom is left to Schemathesis.
"""

import json
import sys

document = json.load(sys.stdin)
parameters = document["components"]["parameters"]
# A long poll waits as long as it is told to.
parameters["Wait"]["schema"] = {"type": "string", "enum": ["0", "1ms", "0.002"]}
# A server that is behind the version asked for waits a second, and then says 503.
parameters["Floor"]["schema"] = {"type": "string", "enum": ["0"]}
parameters["Floor"]["example"] = "0"
# The answer has neither body nor media type then, as it should.
for item in document["paths"].values():
    for operation in item.values():
        if isinstance(operation, dict) and "parameters" in operation:
            operation["parameters"] = [
                parameter
                for parameter in operation["parameters"]
                if parameter.get("$ref") != "#/components/parameters/Prefer"
            ]
# Parameters' examples are people's; Schemathesis draws from the schemas.
json.dump(document, sys.stdout)
