#!/bin/sh
# The nodes of a Slurm job → a Ray cluster with one program on its first node, which ends when the program does, with its status.
#
#   ray.sh GCS_PORT DASHBOARD_PORT SECONDS PROGRAM [ARGUMENT …]
#
# srun starts this once on each node, in a container or not. GCS_PORT 0 is any free one, DASHBOARD_PORT 0 none; SECONDS is how long all
# nodes may take to join. The nodes meet in a file beside this program, which the batch script makes for each start of the job: its one
# line is empty, `up ADDRESS`, or `ended STATUS`. A file that is there all the time is read anew on every file system, where one that
# appears is not. Only POSIX sh, and Ray's own command line (https://docs.ray.io/en/latest/cluster/cli.html).
set -u
port=$1 dashboard=$2 patience=$3
shift 3
job=$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
nodes=${SLURM_STEP_NUM_NODES:-${SLURM_JOB_NUM_NODES:-1}}
state=${0%/*}/ray-$job
first=no ray=
[ "${SLURM_NODEID:-0}" != 0 ] || first=yes

# One folder for each job, so that jobs which share a node do not meet; short, because sockets lie in it. All nodes have to call it alike.
export RAY_TMPDIR="/tmp/ray-$job"
export RAY_USAGE_STATS_ENABLED=0

say() { printf 'ray on %s: %s\n' "${SLURMD_NODENAME:-node ${SLURM_NODEID:-0}}" "$*"; }
alive() { kill -0 "$ray" 2>/dev/null; }
late() { [ "$(date +%s)" -ge "$deadline" ]; }
look() { # word and address, as they are in the file where the nodes meet
    word='' address=''
    read -r word address <"$state" || :
}

give_up() { # what went wrong: says it, with Ray's last words
    say "$*"
    [ ! -s "$log" ] || tail -n 20 "$log"
    leave 1
}

leave() { # the status: the first node tells the others, and waits until they have left; then Ray ends here
    trap '' TERM INT
    if [ $first = yes ]; then
        echo "ended $1" >"$state"
        waited=0
        # srun takes the worst status of all nodes: one that it has to kill would hide the program's.
        while [ $waited -lt 45 ] && [ "$(ls "$state".* 2>/dev/null | wc -l)" -lt $((nodes - 1)) ]; do
            sleep 1
            waited=$((waited + 1))
        done
    fi
    if [ -n "$ray" ]; then
        kill "$ray" 2>/dev/null
        wait "$ray" 2>/dev/null
    fi
    rm -rf "$RAY_TMPDIR"
    [ $first = yes ] || : >"$state.$SLURM_NODEID"
    exit "$1"
}

join() { # options of `ray start`: Ray on this node, with what of it is the job's
    set -- --disable-usage-stats --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 "$@"
    [ -z "${SLURM_CPUS_ON_NODE:-}" ] || set -- "$@" "--num-cpus=$SLURM_CPUS_ON_NODE"
    [ -z "${SLURM_GPUS_ON_NODE:-}" ] || set -- "$@" "--num-gpus=$SLURM_GPUS_ON_NODE"
    # Ray's own share of the memory, of the job's instead of the machine's.
    [ "${SLURM_MEM_PER_NODE:-0}" -lt 512 ] || set -- "$@" "--object-store-memory=$((SLURM_MEM_PER_NODE * 314572))"
    # What Slurm sends to all processes of the job (`signal:`) is for the program.
    trap '' USR1 USR2
    ray start --block "$@" >"$log" 2>&1 &
    ray=$!
    trap - USR1 USR2
}

lead() { # the program's words
    set_dashboard="--include-dashboard=false"
    [ "$dashboard" = 0 ] || set_dashboard="--include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port=$dashboard"
    # With `ray[client]` Ray takes a fixed port for it, which another job on this node may have; without, it refuses the option.
    for client in "--ray-client-server-port=$((20000 + SLURM_JOB_ID % 10000))" ''; do
        # shellcheck disable=SC2086 # options, without spaces in them
        join --head --port="$port" $set_dashboard $client
        while alive && [ ! -s "$RAY_TMPDIR/ray/ray_current_cluster" ]; do
            ! late || give_up "not ready after $patience s"
            sleep 1
        done
        ! alive || break
    done
    alive || give_up "could not be started"
    RAY_ADDRESS=$(cat "$RAY_TMPDIR/ray/ray_current_cluster")
    export RAY_ADDRESS
    echo "up $RAY_ADDRESS" >"$state"
    joined=1
    # As NeMo-Run counts them.
    while [ "$joined" -lt "$nodes" ]; do
        alive || give_up "ended by itself"
        ! late || give_up "after $patience s only $joined of $nodes nodes have joined"
        sleep 1
        joined=$(ray status 2>/dev/null | sed -n '/^Active:/,/^Pending:/p' | grep -c 'node_')
    done
    say "$joined of $nodes nodes at $RAY_ADDRESS"
    # Slurm sends a signal to the program too; its status counts, and the end of it is awaited.
    trap : TERM INT HUP USR1 USR2
    "$@"
    leave $?
}

follow() {
    while look && [ "$word" != up ]; do
        [ "$word" != ended ] || leave 0
        ! late || give_up "the first node was not ready after $patience s"
        sleep 1
    done
    join --address="$address"
    while look && [ "$word" != ended ]; do
        if ! alive; then
            wait "$ray"
            give_up "ended by itself with status $?"
        fi
        sleep 1
    done
    leave 0
}

deadline=$(($(date +%s) + patience))
log=$RAY_TMPDIR/start-${SLURM_NODEID:-0}.log
trap 'leave 143' TERM INT
# Ray opens thousands of files on a large cluster.
ulimit -S -n 65536 2>/dev/null || ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || :
# In /tmp everybody may have made it before.
mkdir -m 700 "$RAY_TMPDIR" 2>/dev/null || { [ -O "$RAY_TMPDIR" ] && [ ! -L "$RAY_TMPDIR" ]; } || {
    echo "ray: $RAY_TMPDIR is there already, and not ours"
    exit 1
}
command -v ray >/dev/null || give_up "there is no program \`ray\` in PATH"
if [ $first = yes ]; then lead "$@"; else follow; fi
