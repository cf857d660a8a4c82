"""The sink: verbs and actions of its rules, the keys of a behaviour's file, and its mutants."""

from __future__ import annotations

from docs_build.markup import Page, anchored, block, code, sentence, table
from smtpbench.rules.register import BY_NAME
from smtpbench.sink.behaviour import ACTIONS, KEYS, VERBS
from smtpbench.sink.mutants import MUTANTS


def pages() -> list[Page]:
    """Return the page."""
    actions = [(anchored(f"action.{_first_word(name)}", code(name)), sentence(text)) for name, text in ACTIONS.items()]
    keys = [(anchored(f"config.{name}", code(name)), sentence(text)) for name, text in KEYS.items()]
    mutants = [
        (anchored(f"mutant.{name}", code(name)), f"[{rule.section}](rules/{name}.md)", sentence(rule.requirement))
        for name, rule in sorted(BY_NAME.items())
        if name in MUTANTS
    ]
    parts = [
        "`smtpbench sink` is a test mail server that accepts everything, or misbehaves on request. Its options are on "
        "the page [smtpbench sink](command-line/sink.md). The fixtures of the pytest plugin take the same options.\n",
        "## Rules { #rules }\n",
        block("sh", "smtpbench sink --on DATA=reset@1% --on EHLO=drip --on 'message=550 5.7.1 no thanks@5%'"),
        "A rule is `VERB=ACTION[@SHARE]`. The share is the percentage of occasions on which the rule applies, drawn with "
        "the seed; without one the rule always applies. Rules are tried in order: the first one that applies gives the "
        "reply, and the delays of all that apply are added.\n",
        "### Verbs { #verbs }\n",
        "`connect` stands for the greeting, `message` for the reply to the end of a message. The others are commands: "
        + ", ".join(code(verb) for verb in VERBS if verb.isupper())
        + ".\n",
        "### Actions { #actions }\n",
        table("pairs", ("Action", "What the client gets"), actions),
        "## File of `--config` { #config }\n",
        table("pairs", ("Key", "Meaning"), keys),
        block("yaml", "on:\n  - RCPT=delay:20ms\n  - message=tempfail@5%\nstall: 4s..5s\nseed: 7"),
        "## Mutants { #mutants }\n",
        "`smtpbench sink --mutant NAME` breaks one [protocol rule](rules/index.md) and keeps all others. It shows whether a "
        "checker notices.\n",
        table("keys", ("Mutant", "Source", "The requirement that it breaks"), mutants),
    ]
    return [Page("reference/sink.md", "Sink", "\n".join(parts))]


def _first_word(action: str) -> str:
    return action.partition(":")[0].partition(" ")[0]
