"""Says, as JSON lists of texts, what is wrong with an OpenAPI document, with its examples, and with values that its schemas describe.

Reads from standard input a list of {"document": …, "instances": [{"schema": NAME, "value": …, "valid": true|false}, …]}, and answers each with
a list.
"""

import json
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012


def check(asked):
    document = asked["document"]
    problems = [f"the document: {error.message}"[:500] for error in OpenAPIV31SpecValidator(document).iter_errors()]
    if not problems:
        registry = Registry().with_resource("urn:document", Resource(contents=document, specification=DRAFT202012))
        for name, schema in document["components"]["schemas"].items():
            Draft202012Validator.check_schema(schema)
        problems += examples(document, registry)
        problems += [text for instance in asked["instances"] for text in instance_problems(instance, registry)]
    return problems


def errors(schema, value, registry):
    """What the schema, whose references are relative to the document, says against the value."""
    schema = json.loads(json.dumps(schema).replace('"#/components/', '"urn:document#/components/'))
    return [error.message[:500] for error in Draft202012Validator(schema, registry=registry).iter_errors(value)]


def instance_problems(instance, registry):
    name, value = instance["schema"], instance["value"]
    found = errors({"$ref": f"#/components/schemas/{name}"}, value, registry)
    if instance["valid"]:
        return [f"{name}: {error}" for error in found]
    return [] if found else [f"{name}: {json.dumps(value)[:500]} ought not to be valid"]


def examples(document, registry):
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            contents = [operation.get("requestBody", {}).get("content", {})]
            contents += [response.get("content", {}) for response in operation["responses"].values()]
            for content in contents:
                for media in content.values():
                    if "example" in media:
                        wrong = errors(media["schema"], media["example"], registry)
                        found += [f"the example of {method} {path}: {error}" for error in wrong]
            for parameter in operation.get("parameters", []):
                if "example" in parameter:
                    wrong = errors(parameter["schema"], parameter["example"], registry)
                    found += [f"the example of {parameter['name']} of {method} {path}: {error}" for error in wrong]
    return found


json.dump([check(asked) for asked in json.load(sys.stdin)], sys.stdout)
