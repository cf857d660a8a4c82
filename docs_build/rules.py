"""Protocol rules: an overview, and a page for each rule of the register."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Final

from docs_build.dialogues import MOST, Lines, dialogues
from docs_build.markup import Page, anchored, block, sentence, table
from smtpbench.rules.register import PARTS, RULES
from smtpbench.rules.rule import ADVICE, SEVERITY_MEANINGS, Rule
from smtpbench.rules.target_info import NEEDS
from smtpbench.sink.mutants import MUTANTS

FOLDER: Final = "reference/rules"
#: CRLF as it is spelled out, with more of the line behind it.
_LINE_END: Final = re.compile(r"(?<!\\)\\r\\n(?=.)")


def pages() -> list[Page]:
    """Return the overview and a page for each rule."""
    return [_overview(), *(_page(rule, title) for title, rules in PARTS.items() for rule in rules)]


def section_url(section: str) -> str:
    """Return the address of `RFC 5321 §4.1.1.4` at the RFC Editor."""
    match = re.fullmatch(r"RFC (\d+) §(\S+)", section)
    if match is None:
        raise ValueError(f"{section!r} is not a section of an RFC")
    part = "section" if match[2][0].isdigit() else "appendix"
    return f"https://www.rfc-editor.org/rfc/rfc{match[1]}.html#{part}-{match[2]}"


def _overview() -> Page:
    severities = [(anchored(name, f"**{name}**"), sentence(meaning)) for name, meaning in SEVERITY_MEANINGS.items()]
    parts = [
        f"`smtpbench check` checks a server against {len(RULES)} rules, and `smtpbench fuzz` reads every dialogue for "
        "breaches of those that hold in any dialogue. `smtpbench rules` lists them, `smtpbench rules NAME` explains one.\n",
        "## Severities { #severities }\n",
        table("pairs", ("Severity", "Meaning"), severities),
    ]
    for title, rules in PARTS.items():
        listed = [(f"[`{one.name}`]({one.name}.md)", one.severity, sentence(one.requirement)) for one in rules]
        parts += [f"## {title}\n", table("rules", ("Rule", "Severity", "Requirement"), listed)]
    by_section: dict[str, list[str]] = defaultdict(list)
    for rule in RULES:
        by_section[rule.section].append(f"[`{rule.name}`]({rule.name}.md)")
    sections = [
        (f"[{section}]({section_url(section)})", ", ".join(by_section[section]))
        for section in sorted(by_section, key=_order)
    ]
    parts += ["## By section of the RFCs { #sections }\n", table("pairs", ("Section", "Rules"), sections)]
    return Page(f"{FOLDER}/index.md", "Protocol rules", "\n".join(parts))


def _order(section: str) -> tuple[int, ...]:
    """RFC and section as numbers; appendices after all sections."""
    return tuple(int(part) if part.isdigit() else 1000 + ord(part) for part in re.findall(r"\d+|(?<=§)[A-Z]", section))


def _page(rule: Rule, title: str) -> Page:
    details = [
        ("Requirement", sentence(rule.requirement)),
        ("Source", f"[{rule.section}]({section_url(rule.section)})"),
        ("Severity", f"[{rule.severity}](index.md#{rule.severity})"),
        ("Number", rule.id),
        ("Expected of a server", sentence(rule.expected)),
        ("Needs", "; ".join(NEEDS.get(need, f"`{need}` offered by the server") for need in rule.needs) or "nothing"),
        ("How it is checked", _how(rule)),
    ]
    parts = [
        table("facts", ("Fact", "Value"), [(f"**{name}**", text) for name, text in details]),
        "## Try it { #try }\n",
        block("sh", _commands(rule)),
    ]
    shown = dialogues().get(rule.name, []) if rule.probe is not None else []
    if shown:
        parts += [
            f"## {'Dialogue' if len(shown) == 1 else 'Dialogues'} of the probe {{ #dialogue }}\n",
            _introduction(shown),
        ]
        parts += [_dialogue(lines, at, len(shown)) for at, lines in enumerate(shown)]
    return Page(f"{FOLDER}/{rule.name}.md", rule.name, "\n".join(parts), title)


def _how(rule: Rule) -> str:
    probe = "a probe sends the dialogues below" if rule.probe is not None else ""
    invariant = "every dialogue with the server is read for it" if rule.invariant is not None else ""
    alone = "nothing else is tried meanwhile, for the server may not survive" if rule.exclusive else ""
    return sentence("; ".join(filter(None, (probe, invariant, alone))))


def _commands(rule: Rule) -> str:
    strict = " --strict" if rule.severity == ADVICE else ""
    scheme = "lmtp" if "lmtp" in rule.needs else "smtp"
    lines = [f"smtpbench check {rule.name} --target {scheme}://127.0.0.1:2525{strict}"]
    if rule.name in MUTANTS:
        lmtp = " --lmtp" if scheme == "lmtp" else ""
        lines[:0] = [
            "# a server that breaks the rule",
            f"smtpbench sink --listen 127.0.0.1:2525{lmtp} --mutant {rule.name}",
            "",
        ]
        lines.insert(3, "# in another terminal")
    return "\n".join(lines)


def _introduction(shown: list[Lines]) -> str:
    more = f" The first {MOST} are shown." if len(shown) == MOST else ""
    return (
        "`C:` is what the probe sends, `S:` what smtpbench's own sink answers, which keeps the rule. "
        f"Control characters are spelled out, and long text is cut.{more}\n"
    )


def _dialogue(lines: Lines, at: int, count: int) -> str:
    # each line of what is sent or received stands on a line of its own
    text = block("text", "\n".join(_LINE_END.sub(r"\\r\\n\n   ", line) for line in lines))
    if count == 1:
        return text
    indented = "\n".join(f"    {line}" if line else "" for line in text.splitlines())
    return f'???{"+" if at == 0 else ""} quote "Dialogue {at + 1} of {count}"\n\n{indented}\n'
