"""Metadata is judged as JSON Schema judges it, and mistakes are told with their line and what to write."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from ai4sdk.catalog import metadata as room
from ai4sdk.catalog.metadata import METADATA_FILE, read_metadata, validate_metadata
from ai4sdk.catalog.schema import KEYWORDS
from ai4sdk.catalog.shipped import shipped_modules
from ai4sdk.errors import ConfigError, NotFound

SCHEMA = json.loads((Path(room.__file__).with_name("schemas") / "ai4-metadata-2.3.0.json").read_text(encoding="utf-8"))
DIGITS = read_metadata(shipped_modules() / "digits" / METADATA_FILE)
ODD = [None, True, 3, -1, 2.5, "x", "2.3.0", "Image", [], ["Other"], ["Other", "Other"], [1], {}, {"cpu": -1}]


@pytest.mark.parametrize(
    "file", sorted(shipped_modules().glob(f"*/{METADATA_FILE}")), ids=lambda file: file.parent.name
)
def test_the_modules_that_ship_are_described_by_the_book(file):
    jsonschema.Draft202012Validator(SCHEMA).validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    assert validate_metadata(read_metadata(file)) == []


def test_every_module_that_ships_has_a_description():
    folders = [folder for folder in shipped_modules().iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    assert len(folders) >= 3
    assert all((folder / METADATA_FILE).is_file() and (folder / "README.md").is_file() for folder in folders)


def variants():
    """Metadata with one thing changed: every value replaced by odd ones, every key taken out, others put in."""

    def places(value, path=()):
        yield path
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, child in children:
            yield from places(child, (*path, name))

    def at(document, path):
        for name in path:
            document = document[name]
        return document

    for path in list(places(DIGITS))[1:]:
        for odd in ODD:
            changed = copy.deepcopy(DIGITS)
            at(changed, path[:-1])[path[-1]] = odd
            yield path, changed
        changed = copy.deepcopy(DIGITS)
        del at(changed, path[:-1])[path[-1]]
        yield path, changed
    for old in ("tosca", "sources", "dataset_url", "cite_url", "date_creation", "keywords", "something_new"):
        yield (old,), {**DIGITS, old: []}


def test_it_agrees_with_json_schema_on_hundreds_of_odd_files():
    judge = jsonschema.Draft202012Validator(SCHEMA)
    verdicts = set()
    for path, document in variants():
        valid = judge.is_valid(document)
        assert (validate_metadata(document) == []) is valid, (path, document)
        verdicts.add(valid)
    assert verdicts == {True, False}


def test_no_keyword_of_the_schema_is_passed_over():
    notes = {"$schema", "$id", "description", "title", "example", "user_friendly", "format", "definitions"}

    def keywords(schema):
        for keyword, value in schema.items():
            yield keyword
            if keyword in ("properties", "definitions"):
                for child in value.values():
                    yield from keywords(child)
            elif keyword == "items":
                yield from keywords(value)

    assert set(keywords(SCHEMA)) <= KEYWORDS | notes
    assert SCHEMA["not"].keys() == {"anyOf"}
    assert all(part.keys() == {"required"} for part in SCHEMA["not"]["anyOf"])


def test_all_mistakes_are_told_at_once_with_their_lines_and_fixes(tmp_path):
    file = tmp_path / METADATA_FILE
    file.write_text(
        "metadata_version: 2.3.0\n"
        "title: Fish\n"
        "description: Counts fish\n"
        "dates:\n"
        "  created: 2026-01-31\n"
        "  updated: '2026-01-31'\n"
        "links: {}\n"
        "libraries: [Pytorch]\n"
        "tasks:\n"
        "  - Computer Vision\n"
        "  - Computer Vision\n"
        "categories: []\n"
        "tags: []\n",
        encoding="utf-8",
    )
    problems = {problem.key: problem for problem in validate_metadata(read_metadata(file), path=file)}
    assert "summary is missing" in problems[""].message
    assert problems["dates.created"].fix == "'2026-01-31'"
    assert "source_code" in problems["links"].message
    assert problems["libraries.0"].fix == "PyTorch"
    assert "twice" in problems["tasks.1"].message
    lines = {key: problem.origin.line for key, problem in problems.items()}
    assert lines == {"": 1, "dates.created": 5, "links": 7, "libraries.0": 8, "tasks.1": 11}


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        read_metadata(tmp_path / METADATA_FILE)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"title: [a\nsummary: b\n", 2),
        (b"- a\n- b\n", 1),
        (b"", 1),
        (b"title: \xff\xfe\n", 1),
        (b"title: a\n\tsummary: b\n", 2),
        (b"when: 2026-02-31\n", 1),
    ],
    ids=["open bracket", "a list", "empty", "not UTF-8", "tab", "no such day"],
)
def test_a_file_that_is_no_yaml_mapping_is_told_with_its_line(tmp_path, content, line):
    file = tmp_path / METADATA_FILE
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_metadata(file)
    assert caught.value.problems[0].origin.line == line
