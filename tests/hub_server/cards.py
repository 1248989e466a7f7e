"""The metadata at the head of README.md, and what of the Hub's validation of them is known here.

The real Hub knows more: a card that passes here may still be refused there.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from .hub_handler import HubHandler, route
from .storage import Repository


# Written from the Hub's documentation; not all of them.
LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigcode-openrail-m afl-3.0 artistic-2.0 "
    "bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 "
    "cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 "
    "cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 ecl-2.0 epl-2.0 etalab-2.0 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 "
    "lgpl-3.0 isc ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl "
    "llama2 llama3 gemma unknown other"
)


@route("POST", "/api/validate-yaml")
def validate(request: HubHandler) -> None:
    content = request.json().get("content", "")
    text = _metadata(content)
    errors: list[str] = []
    warnings = []
    if text is None:
        warnings.append("empty or missing yaml metadata in repo card")
    else:
        try:
            errors.extend(_problems(yaml.safe_load(text) or {}))
        except yaml.YAMLError as error:
            errors.append(f"Invalid YAML: {error}")
    answer = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    request.send_json(answer, 400 if errors else 200)


def card_of(repository: Repository, sha: str) -> dict[str, Any]:
    """Metadata of the card of a revision; empty if it has none that can be read."""
    text = _metadata(repository.text(sha, "README.md"))
    try:
        values = yaml.safe_load(text or "")
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _metadata(content: str) -> str | None:
    found = re.match(r"---\r?\n(.*?)\r?\n?---(\r?\n|\Z)", content, re.DOTALL)
    return None if found is None else found[1]


def _problems(values: Any) -> Iterator[str]:
    if not isinstance(values, dict):
        yield "metadata must be a mapping"
        return
    licenses = values.get("license") or []
    for value in licenses if isinstance(licenses, list) else [licenses]:
        if value not in LICENSES.split():
            yield f'"license" must be one of the Hub\'s license identifiers, got "{value}"'
    for name in ("tags", "metrics", "library_name", "pipeline_tag"):
        if not isinstance(values.get(name, ""), str | list):
            yield f'"{name}" must be a string or a list of strings'
    for i, model in enumerate(values.get("model-index") or []):
        for j, result in enumerate(model.get("results") or []):
            place = f"model-index[{i}].results[{j}]"
            dataset = result.get("dataset") or {}
            if not (result.get("task") or {}).get("type"):
                yield f'"{place}.task.type" is required'
            if not dataset.get("name") or not dataset.get("type"):
                yield f'"{place}.dataset" needs name and type'
