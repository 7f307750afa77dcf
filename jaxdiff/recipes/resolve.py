"""From a config's plain values to the functions they name: the one place where a string chooses code.

A spec {name, **options} is looked up in one namespace. What already takes the words of its run (a row takes `process`, a law
of times takes `key`) gets its options filled in; what makes such a thing (a process, an optimiser, a network) is called."""

import inspect
from collections.abc import Mapping
from typing import Any

from jax.tree_util import Partial

from jaxdiff.errors import InputError

RUN_WORDS = ("process", "key")


def resolve(where: str, namespace: Any, spec: Mapping[str, Any], **given: Any) -> Any:
    """The member of `namespace` that `spec` names, with its options.

    `given` are arguments that the program knows (a network's channels); a member takes those that it has a word for. Raises
    InputError for an unknown name (listing the known ones), an unknown option, or a missing one; `where` is the config field."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise InputError(f"config.{where} is {spec!r}, expected {{'name': ..., **options}}")
    name, options = spec["name"], {key: value for key, value in spec.items() if key != "name"}
    known = [word for word in getattr(namespace, "__all__", dir(namespace)) if callable(getattr(namespace, word))]
    if name not in known:
        raise InputError(f"config.{where}.name is {name!r}, expected one of {', '.join(known)}")
    member = getattr(namespace, name)
    words = _words(member)
    bound = next(iter(words), None) in RUN_WORDS
    free = [word for word in words if word not in (*RUN_WORDS, *given, "t", "n", "params", "updates")]
    if unknown := [option for option in options if option not in words]:
        raise InputError(f"config.{where}: {name} has no option {unknown[0]!r}; it has {', '.join(free) or 'none'}")
    if bound:
        return Partial(member, **options) if options else member
    arguments = {word: value for word, value in given.items() if word in words} | options
    if missing := [word for word, p in words.items() if p.default is p.empty and word not in arguments]:
        raise InputError(f"config.{where}: {name} needs {missing[0]!r}, which has no default; give it beside the name")
    return member(**arguments)


def _words(member):
    """The parameters that a call of `member` may name."""
    # A Flax module's own signature is its metaclass's (*args, **kwargs).
    function = member.__init__ if inspect.isclass(member) else member
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {word: p for word, p in inspect.signature(function).parameters.items() if word != "self" and p.kind in named}
