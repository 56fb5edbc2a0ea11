"""Executables named like Slurm's, for faults that a real one does not have on demand: kills in mid-request, silence, odd words.

Everything that they know lies in a folder: `jobs/<id>` holds `name|folder`. How they behave is a word in `mode/<command>`.
"""

from __future__ import annotations

import os
from pathlib import Path

SBATCH = r"""#!/bin/sh
mode=$(cat "@@/mode/sbatch" 2>/dev/null)
[ "$1" != --version ] || { echo "slurm 99.9"; exit; }
for script; do :; done
env >"@@/env"
printf '%s\n' "$*" >>"@@/calls"
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
accept() {
    id=1000
    until mkdir "@@/ids/$id" 2>/dev/null; do id=$((id + 1)); done
    printf '%s|%s\n' "$name" "$PWD" >"@@/jobs/$id"
}
case $mode in
kill-before) kill -9 $$ ;;
refuse) echo "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified" >&2; exit 1 ;;
slow) sleep 3; accept ;;
lost-answer) accept; echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1 ;;
lost-request) echo "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)" >&2; exit 1 ;;
kill-after) accept; kill -9 $$ ;;
chatty) accept; echo "Hello, this is the site's wrapper."; echo "$id;mycluster"; exit ;;
*) accept ;;
esac
case $* in *--test-only*) echo "sbatch: Job $id to start at 2030-01-01T00:00:00 using 8 processors on nodes n1" >&2; exit ;; esac
echo "$id"
"""

SQUEUE = r"""#!/bin/sh
mode=$(cat "@@/mode/squeue" 2>/dev/null)
case $mode in
hang) sleep 60 ;;
down) echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1 ;;
forget) exit ;;
esac
name= format='%i|%T|%r|%S|%j|%N|%Q'
while [ $# -gt 0 ]; do
    case $1 in --name=*) name=${1#--name=} name=${name%%,*} ;; -o) format=$2; shift ;; esac
    shift
done
if [ "$format" = %F ]; then
    for file in "@@"/jobs/*; do
        [ -e "$file" ] || continue
        IFS='|' read -r has folder <"$file"
        [ "$has" != "$name" ] || echo "${file##*/}"
    done
else
    awk -F'|' '{ n = split(FILENAME, part, "/"); print part[n] "|RUNNING|None|1700000000|" $1 "|n1|1" }' "@@"/jobs/* /dev/null
fi
"""

SACCT = r"""#!/bin/sh
mode=$(cat "@@/mode/sacct" 2>/dev/null)
case $mode in
disabled) echo "Slurm accounting storage is disabled" >&2; exit 1 ;;
down) echo "sacct: error: Problem talking to the database: Connection refused" >&2; exit 1 ;;
hang) sleep 60 ;;
esac
name=
for word; do case $word in --name=*) name=${word#--name=} name=${name%%,*} ;; esac; done
[ "$mode" = knows ] || exit 0
for file in "@@"/jobs/*; do
    IFS='|' read -r has folder <"$file"
    [ -n "$name" ] && [ "$has" != "$name" ] || echo "${file##*/}"
done
"""

SCANCEL = r"""#!/bin/sh
printf 'scancel %s\n' "$*" >>"@@/calls"
"""

SCONTROL = r"""#!/bin/sh
printf 'scontrol %s\n' "$*" >>"@@/calls"
echo "slurm_load_jobs error: Invalid job id specified" >&2
exit 1
"""


class PretendSlurm:
    """A folder of such executables: `bin` belongs in front of PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        for name in ("bin", "jobs", "ids", "mode"):
            (folder / name).mkdir(parents=True)
        scripts = {"sbatch": SBATCH, "squeue": SQUEUE, "sacct": SACCT, "scancel": SCANCEL, "scontrol": SCONTROL}
        for name, text in scripts.items():
            (self.bin / name).write_text(text.replace("@@", str(folder)))
            (self.bin / name).chmod(0o755)

    def mode(self, command: str, word: str) -> None:
        """How a command behaves from now on; an empty word is ordinary."""
        (self.folder / "mode" / command).write_text(word)

    @property
    def jobs(self) -> list[str]:
        """The ids that were accepted, in order."""
        return sorted(os.listdir(self.folder / "jobs"))

    @property
    def calls(self) -> list[str]:
        """What sbatch, scancel and scontrol were called with, a line a call."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []
