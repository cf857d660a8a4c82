"""Completion in bash, zsh and fish: the script of each shell, where it is installed, and the answers to the scripts.

Theory of operation: on a Tab the script calls `_SMTPBENCH_COMPLETE=<shell> smtpbench "<the line up to the cursor>"`. The
answer has a line for each word: the word, a space if the word is finished, a tab, and its description. Exit code 1 tells
the shell to offer files, which it does itself. `cli.completion_values` finds the words.

bash splits words at characters such as `:` and `=`. It gets only the part after the last of them.
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
    local -a finished unfinished
    answer="$(_SMTPBENCH_COMPLETE=zsh ${(Q)~words[1]} "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)" ||
        { _files; return }
    for line in "${(@f)answer}"; do
        text="${line%%$'\\t'*}" about="${line#*$'\\t'}"
        if [[ $text == *' ' ]]; then
            finished+=("${${text% }//:/\\\\:}${about:+:$about}")
        elif [[ -n $text ]]; then
            unfinished+=("${text//:/\\\\:}${about:+:$about}")
        fi
    done
    _describe -t words smtpbench finished -- unfinished -S ''
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


class CommandLine(NamedTuple):
    """A command line up to the cursor.

    Attributes:
        preceding: Words before the last one, without `smtpbench`.
        incomplete: The last word so far; empty after a space.
        quoted: Whether it stands in quotes that are not closed.
    """

    preceding: list[str]
    incomplete: str
    quoted: bool


def answer(commands: Mapping[str, str]) -> None:
    """Print the answer to the script of a shell. Raises typer.Exit where the shell should offer files."""
    line = parse_line(sys.argv[1] if len(sys.argv) > 1 else "")
    found = completion_values(line.preceding, line.incomplete, commands)
    if found is None:
        raise typer.Exit(_FILES)
    shell = os.environ[VARIABLE]
    for value in found:
        typer.echo(answer_line(value, line, shell, os.environ.get(_WORDBREAKS, "")))


def parse_line(line: str) -> CommandLine:
    """Split an unfinished command line as a shell would."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    tokens: list[str] = []
    quoted = False
    try:
        tokens.extend(lexer)
    except ValueError:  # open quotes, or a backslash at the end
        tokens.append(lexer.token)
        quoted = True
    if not quoted and (not line or line[-1].isspace()):
        tokens.append("")
    program = next((at for at, word in enumerate(tokens) if os.path.basename(word) == "smtpbench"), 0)
    *preceding, incomplete = tokens[program + 1 :] or [""]
    return CommandLine(preceding, incomplete, quoted)


def answer_line(value: CompletionValue, line: CommandLine, shell: str, wordbreaks: str = "") -> str:
    """Return a line of the answer."""
    text, space = value.text, " " if value.finished else ""
    if shell == "fish":  # it adds the space itself, and none after `/`, `:` or `=`
        return f"{text}\t{_one_line(value.description)}" if value.description else text
    if shell != "bash":
        return f"{text}{space}\t{_one_line(value.description)}"
    if line.quoted:
        return text
    breaks = [at for at, character in enumerate(line.incomplete) if character in wordbreaks]
    text = text[breaks[-1] + 1 :] if breaks else text
    return re.sub(r"""([\s'"\\$`&;|<>(){}*?\[\]#!])""", r"\\\1", text) + space


def _one_line(text: str) -> str:
    return " ".join(text.split())


def script_of(shell: str) -> str:
    """Return the script for a shell; an empty name is the shell of the user. Raises UsageError."""
    return SCRIPTS[_known_shell(shell)]


def install(shell: str, home: Path | None = None) -> tuple[str, list[Path]]:
    """Write the script of a shell where the shell reads it, and return the shell and the files that were written.

    fish reads a folder of its own. bash and zsh get a line in `.bashrc` or `.zshrc`, once.

    Raises:
        UsageError: The shell is not known.
        CannotRun: A file cannot be written.
    """
    shell, home = _known_shell(shell), home or Path.home()
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
            present = settings.read_text(encoding="utf-8", errors="surrogateescape") if settings.exists() else ""
            if line not in present:
                with settings.open("a", encoding="utf-8") as file:
                    file.write(("" if present.endswith("\n") or not present else "\n") + line)
                written.append(settings)
    except OSError as error:
        raise CannotRun(f"the completion cannot be installed: {error.filename}: {error.strerror}") from None
    return shell, written


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ[variable]) if os.environ.get(variable) else default


def _known_shell(shell: str) -> str:
    found = shell or _users_shell() or "this shell"
    if found not in SHELLS:
        raise UsageError(f"there is no completion for {found}; allowed are {', '.join(SHELLS)}{did_you_mean(found, SHELLS)}")
    return found


def _users_shell() -> str:
    """Return the shell that started this process, from its parents (proc(5)) or from SHELL; empty for an unknown one."""
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
