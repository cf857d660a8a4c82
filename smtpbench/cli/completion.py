"""Completion in bash, zsh and fish: the script for each, where it is installed, and the answer that it asks for.

Theory of operation: on a Tab the script calls `_SMTPBENCH_COMPLETE=<shell> smtpbench "<the line up to the cursor>"`. The
answer is a word a line, with a space behind it where it is finished, a tab and what it means; exit code 1 says that the
shell is to offer files, which it does best itself. What the words are, `cli.words` knows.

bash breaks words at characters such as `:` and `=` and wants only what comes after the last of them.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import typer

from smtpbench.cli.completion_values import SHELLS, CompletionValue, completion_values
from smtpbench.errors import CannotRun, UsageError
from smtpbench.text import did_you_mean

VARIABLE: Final = "_SMTPBENCH_COMPLETE"
_WORDBREAKS: Final = "_SMTPBENCH_WORDBREAKS"
_FILES: Final = 1
_MOST_PARENTS: Final = 5

SCRIPTS: Final[Mapping[str, str]] = {
    "bash": """\
# Completion of smtpbench for bash.
_smtpbench() {
    local answer
    COMPREPLY=()
    if answer=$(_SMTPBENCH_COMPLETE=bash _SMTPBENCH_WORDBREAKS=$COMP_WORDBREAKS \\
            "$1" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null); then
        compopt -o nospace
        [[ -z $answer ]] || mapfile -t COMPREPLY <<< "$answer"
    else
        compopt -o default
    fi
}
complete -F _smtpbench smtpbench
""",
    "zsh": """\
#compdef smtpbench
# Completion of smtpbench for zsh.
_smtpbench() {
    local answer line text about
    local -a finished begun
    answer="$(_SMTPBENCH_COMPLETE=zsh ${(Q)~words[1]} "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)" ||
        { _files; return }
    for line in "${(@f)answer}"; do
        text="${line%%$'\\t'*}" about="${line#*$'\\t'}"
        if [[ $text == *' ' ]]; then
            finished+=("${${text% }//:/\\\\:}${about:+:$about}")
        elif [[ -n $text ]]; then
            begun+=("${text//:/\\\\:}${about:+:$about}")
        fi
    done
    _describe -t words smtpbench finished -- begun -S ''
}
if [[ $funcstack[1] == _smtpbench ]]; then
    _smtpbench "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _smtpbench smtpbench
fi
""",
    "fish": """\
# Completion of smtpbench for fish.
function __smtpbench_complete
    set -l answer (env _SMTPBENCH_COMPLETE=fish smtpbench (commandline -cp | string collect) 2>/dev/null)
    if test $status -eq 0
        printf '%s\\n' $answer
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command smtpbench --no-files --arguments '(__smtpbench_complete)'
""",
}


class Begun(NamedTuple):
    """A line up to the cursor: the words before the last one, the last one, and whether it stands in open quotes."""

    before: list[str]
    word: str
    quoted: bool


def answer(commands: Mapping[str, str]) -> None:
    """Print what the script of a shell wants to know. Raises typer.Exit where the shell is to offer files."""
    begun = split(sys.argv[1] if len(sys.argv) > 1 else "")
    found = completion_values(begun.before, begun.word, commands)
    if found is None:
        raise typer.Exit(_FILES)
    shell = os.environ[VARIABLE]
    for word in found:
        typer.echo(shown(word, begun, shell, os.environ.get(_WORDBREAKS, "")))


def split(line: str) -> Begun:
    """Read a line as a shell would, as far as it goes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    quoted = False
    try:
        words.extend(lexer)
    except ValueError:  # quotes that are not closed yet, or a backslash at the end
        words.append(lexer.token)
        quoted = True
    if not quoted and (not line or line[-1].isspace()):
        words.append("")
    program = next((at for at, word in enumerate(words) if os.path.basename(word) == "smtpbench"), 0)
    *before, word = words[program + 1 :] or [""]
    return Begun(before, word, quoted)


def shown(word: CompletionValue, begun: Begun, shell: str, wordbreaks: str = "") -> str:
    """A line of the answer."""
    text, space = word.text, " " if word.finished else ""
    if shell == "fish":  # it puts the space itself, and none after `/`, `:` or `=`
        return f"{text}\t{_one_line(word.about)}" if word.about else text
    if shell != "bash":
        return f"{text}{space}\t{_one_line(word.about)}"
    if begun.quoted:
        return text
    broken = [at for at, character in enumerate(begun.word) if character in wordbreaks]
    text = text[broken[-1] + 1 :] if broken else text
    return re.sub(r"""([\s'"\\$`&;|<>(){}*?\[\]#!])""", r"\\\1", text) + space


def _one_line(text: str) -> str:
    return " ".join(text.split())


def script_of(shell: str) -> str:
    """The script for a shell, by default the one that asks. Raises UsageError."""
    return SCRIPTS[_named(shell)]


def install(shell: str, home: Path | None = None) -> tuple[str, list[Path]]:
    """Write a shell's script where it will be read. Gives the shell, and what was written. Raises UsageError, CannotRun.

    fish reads its own folder; bash and zsh get a line in `.bashrc` or `.zshrc`, once.
    """
    shell, home = _named(shell), home or Path.home()
    if shell == "fish":
        script = _folder("XDG_CONFIG_HOME", home / ".config") / "fish" / "completions" / "smtpbench.fish"
    else:
        script = _folder("XDG_DATA_HOME", home / ".local" / "share") / "smtpbench" / f"completion.{shell}"
    written = [script]
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(SCRIPTS[shell], encoding="utf-8")
        if shell != "fish":
            settings = home / ".bashrc" if shell == "bash" else _folder("ZDOTDIR", home) / ".zshrc"
            line = f"[ ! -f {shlex.quote(str(script))} ] || . {shlex.quote(str(script))}\n"
            there = settings.read_text(encoding="utf-8", errors="surrogateescape") if settings.exists() else ""
            if line not in there:
                with settings.open("a", encoding="utf-8") as file:
                    file.write(("" if there.endswith("\n") or not there else "\n") + line)
                written.append(settings)
    except OSError as error:
        raise CannotRun(f"the completion cannot be installed: {error.filename}: {error.strerror}") from None
    return shell, written


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ[variable]) if os.environ.get(variable) else default


def _named(shell: str) -> str:
    found = shell or _asking() or "the shell that asks"
    if found not in SHELLS:
        raise UsageError(f"there is no completion for {found}; name one of {', '.join(SHELLS)}{did_you_mean(found, SHELLS)}")
    return found


def _asking() -> str:
    """The shell that started us, by the parents' names (proc(5)), else by SHELL; empty where it is none that is known."""
    process = os.getppid()
    for _ in range(_MOST_PARENTS):
        try:
            name, _, rest = Path(f"/proc/{process}/stat").read_text().partition("(")[2].rpartition(")")
            process = int(rest.split()[1])
        except (OSError, ValueError, IndexError):
            break
        if name in SHELLS:
            return name
    shell = os.path.basename(os.environ.get("SHELL", ""))
    return shell if shell in SHELLS else ""
