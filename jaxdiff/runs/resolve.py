"""From a config's plain values to the functions they name: the one place where a string chooses code.

A spec {name, **options} is looked up among the functions of one kind. What already takes the words of its run (a row
takes `process`, a law of times takes `key`) gets its options filled in; what makes such a thing (a process, an
optimiser, a network) is called."""

import inspect
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from jax.tree_util import Partial

from jaxdiff.errors import InputError

RUN_WORDS = {"process": ("process", "t", "n"), "key": ("key", "process", "n")}
"""The first word of what runs, and all the words that its caller gives it: no option may be one of them."""

PLAIN = {float: (int, float), Sequence: (tuple, list), tuple: (tuple, list), Path: (str,)}
"""What a plain value may be for an option of this type, where it is not simply of the type."""


def named(namespace: Any, *names: str) -> dict[str, Any]:
    """The members of `namespace` of these names, for `resolve`."""
    return {name: getattr(namespace, name) for name in names}


def resolve(where: str, known: Mapping[str, Any], spec: Any, **given: Any) -> Any:
    """The one of `known` that `spec` names, with its options.

    `given` are arguments that the program knows (a network's channels); a function takes those that it has a word for.
    Raises InputError for an unknown name (listing the known ones), an option that is unknown, missing or of the wrong
    type; `where` is the config field."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise InputError(f"config.{where} is {spec!r}, expected {{'name': ..., **options}}")
    name, options = spec["name"], {key: value for key, value in spec.items() if key != "name"}
    if name not in known:
        raise InputError(f"config.{where}.name is {name!r}, expected one of {', '.join(known)}")
    function, words = known[name], _words(known[name])
    run_words = RUN_WORDS.get(next(iter(words), ""), ())
    free = [word for word in words if word not in (*run_words, *given)]
    for option, value in options.items():
        if option not in free:
            raise InputError(
                f"config.{where}: {name} has no option {option!r}; it has {', '.join(free) or 'none'}; for another "
                f'name, give the whole: --config.{where}=\'{{"name": "{name}"}}\''
            )
        if not _fits(value, words[option].annotation):
            kind = inspect.formatannotation(words[option].annotation)
            raise InputError(f"config.{where}.{option} is {value!r}, expected {kind}, as {name} takes it")
    if run_words:
        return Partial(function, **options) if options else function
    arguments = {word: value for word, value in given.items() if word in words} | options
    if missing := [word for word, p in words.items() if p.default is p.empty and word not in arguments]:
        raise InputError(f"config.{where}: {name} needs {missing[0]!r}, which has no default; give it beside the name")
    return function(**arguments)


def option(known: Mapping[str, Any], spec: Mapping[str, Any], word: str) -> Any:
    """What a spec says for an option, else its default; None where the function has no such option."""
    parameter = _words(known[spec["name"]]).get(word) if spec["name"] in known else None
    return None if parameter is None else spec.get(word, parameter.default)


def takes(known: Mapping[str, Any], spec: Mapping[str, Any], word: str) -> bool:
    """Whether what a spec names has this option."""
    return spec["name"] in known and word in _words(known[spec["name"]])


def _words(function):
    """The parameters that a call of `function` may name."""
    # A Flax module's own signature is its metaclass's (*args, **kwargs).
    function = function.__init__ if inspect.isclass(function) else function
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {word: p for word, p in inspect.signature(function).parameters.items() if word != "self" and p.kind in kinds}


def _fits(value, annotation):
    """Whether a plain value may stand for a parameter, as far as plain types tell."""
    union = get_origin(annotation) in (types.UnionType, Union)
    kinds = [get_origin(kind) or kind for kind in (get_args(annotation) if union else (annotation,))]
    if not all(kind in PLAIN or kind in (int, str, bool, types.NoneType) for kind in kinds):
        return str in kinds or not isinstance(value, str)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, tuple(t for kind in kinds for t in PLAIN.get(kind, (kind,))))
