# The program that runs on the login node: lines and bytes on standard input -> work in job_dir -> marked lines on standard output.
#
# It is constant; everything variable is data. POSIX sh, tar, gzip, head, stat and Slurm's own commands are all that it uses.
# Every request is a verb on a line and then its arguments, a line each. Every answer is sections, `MARK data NAME` ... `MARK end NAME`,
# and then one line, `MARK done WORDS` or `MARK fail CODE`. MARK is random, so what a login shell or a job prints is never an answer.
#
# A run's folder always says who has it, in the name of one file, which only rename(2) changes:
#   claim.BOOT.PID.START    somebody prepares a submission; nothing has reached the scheduler
#   commit.BOOT.PID.START   that very process is (or was, before it became) sbatch; perhaps there is a job
#   job                     the job's id
#   held                    everything lies ready, nobody has it: it waits in queue/
#   turn.BOOT.PID.START     somebody takes it out of the queue; nothing has reached the scheduler
#   dropped                 it was taken out of the queue for good
# A turn or a commit that is not empty has the id of the run's job that has ended, and that another one is to continue: whoever finds
# nobody behind it makes it `job` again. `jobs` has the ids of all such jobs, a line each.
# Where jobs are started through an API (kind api), the client starts them: a commit is then the process that the client speaks to.
#   left                    beside it: who gave the run up, and why; its job is ended when nobody else has it any more
# Whoever renames a file away has taken the run from its holder, whose own next rename then fails: so there is one submission.
# queue/ has an entry, SECONDS.KEY, from before a run becomes `held` until after it has its job or is dropped.

umask 077
trap '' HUP INT TERM PIPE
unset CDPATH IFS
exec 3<&0 4>&1 </dev/null >/dev/null 2>&1
outer_locale=${LC_ALL-} outer_locale_set=${LC_ALL+yes}
LC_ALL=C
export LC_ALL
claimed= locked=
exact=

say() { printf '\n%s %s\n' "$mark" "$*" >&4; }
begin() { printf '\n%s data %s\n' "$mark" "$1" >&4; }
end() { printf '\n%s end %s\n' "$mark" "$1" >&4; }
text() { # name text -> a section
    begin "$1"
    printf '%s' "$2" >&4
    end "$1"
}
fail() { # code words
    text words "$2"
    say fail "$1"
}
code_of() { # what a command said when it failed -> $code
    case $1 in
    *'No space left'* | *'uota exceeded'*) code=cluster.disk-full ;;
    *'ermission denied'* | *'ead-only file system'* | *'not permitted'*) code=cluster.not-writable ;;
    *) code=cluster.failed ;;
    esac
}
failed() { # words
    code_of "$1"
    if [ "$code" = cluster.failed ]; then # a shell's own words may be "I/O error"; others say what it really was
        trial=$(head -c 65536 /dev/zero 2>&1 >"tmp/trial.$token")
        rm -f "tmp/trial.$token"
        code_of "$trial"
        [ "$code" = cluster.failed ] || set -- "$1 $trial"
    fi
    fail "$code" "$(printf '%s' "$1" | head -c 4000)"
}
is_hex() { case $1 in '' | *[!0-9a-f]*) return 1 ;; esac; }
is_name() { case $1 in '' | -* | *[!0-9a-z-]*) return 1 ;; esac; }
is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }
is_job() { case $1 in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) return 1 ;; esac && [ ${#1} -le 64 ]; }
is_inside() { case "/$1/" in // | //* | */../*) return 1 ;; esac; }

# ------------------------------------------------------------------ standard input, exactly

exactly() { # finds out whether head reads no more than it is asked to; busybox' does
    [ -z "$exact" ] || return 0
    if [ "$(printf abcd | { head -c 1; head -c 1; })" = ab ]; then exact=head; else exact=dd; fi
}
take() { # exactly $1 bytes of the conversation -> standard output
    if [ "$exact" = head ]; then
        head -c "$1" <&3
    else
        [ "$1" -lt 65536 ] || dd bs=65536 count=$(($1 / 65536)) iflag=fullblock <&3
        [ $(($1 % 65536)) = 0 ] || dd bs=$(($1 % 65536)) count=1 iflag=fullblock <&3
    fi
}
store() { # $length bytes of the conversation -> a file; all of them are read even when it cannot be written
    exactly
    words=$(take "$length" | { cat >"$1" || { echo =failed >&2; cat >/dev/null; }; } 2>&1)
    case $words in *=failed*) rm -f "$1" ;; *) words= ;; esac
}
gone() { # the client went away in the middle of a request
    give_back
    unlock_ledger
    rm -f tmp/*".$token"
    exit 0
}
chunks() { # frames (a length, then so many bytes) until length 0 -> standard output; 1 when they end too early
    while IFS= read -r length <&3; do
        [ "$length" != 0 ] || return 0
        is_number "$length" || return 1 # the client gave up, and says so
        take "$length"
        touch -c "runs/$claimed/claim.$token"
    done
    return 1
}
line_of() { # file -> $line, its first; 1 when there is none, or what lies there is no file: a job may put a pipe into its folder
    line=
    [ -f "$1" ] && IFS= read -r line <"$1"
}
limited() { # seconds command... -> runs it, but not for longer
    limit=$1
    shift
    if command -v timeout >/dev/null; then
        timeout -k 2 "$limit" "$@"
        return
    fi
    "$@" &
    child=$!
    (sleep "$limit" && kill -9 "$child") >/dev/null 2>&1 &
    watchdog=$!
    wait "$child"
    set -- $?
    kill -9 "$watchdog" 2>/dev/null
    return "$1"
}

# ------------------------------------------------------------------ who has a run

started() { # pid -> $start, its start time; 1 when there is no such process (a zombie is none)
    start=
    if IFS= read -r stat <"/proc/$1/stat"; then
        set -- ${stat##*) }
        case $1 in Z | X) return 1 ;; esac
        start=${20}
        return 0
    fi
    [ ! -e /proc/self/stat ] && kill -0 "$1" && start=0
}
lives() { # BOOT.PID.START -> 0 alive, 1 dead, 2 on another machine
    other=${1#"$boot".}
    [ "$other" != "$1" ] || return 2
    started "${other%%.*}" && [ "$start" = "${other##*.}" ]
}
age() { # file -> $seconds since it was touched
    now=$(date +%s)
    touched=$(stat -c %Y "$1") || touched=$now # it is gone: an arithmetic error would end the shell
    seconds=$((now - touched))
}
holder() { # key -> $state (claim, turn, commit or nothing), $owner
    state= owner=
    for file in "runs/$1"/claim.* "runs/$1"/turn.* "runs/$1"/commit.*; do
        [ -e "$file" ] || continue
        owner=${file##*/}
        state=${owner%%.*}
        owner=${owner#*.}
    done
}
give_back() { # gives the claimed run back: its folder goes away as a whole
    [ -n "$claimed" ] || return 0
    if [ -e "runs/$claimed/claim.$token" ]; then
        mv "runs/$claimed" "tmp/gone.$token.$claimed"
        if [ -e "tmp/gone.$token.$claimed/claim.$token" ]; then
            rm -rf "tmp/gone.$token.$claimed"
        elif [ ! -e "runs/$claimed" ]; then
            mv "tmp/gone.$token.$claimed" "runs/$claimed"
        fi
    fi
    claimed=
}
enter_job() { # key id -> writes the job id and lists the run
    enlist "$1"
    # Not in the run's folder: an earlier job of the run may have put a pipe there.
    printf '%s\n' "$2" >"tmp/job.$token" && mv "tmp/job.$token" "runs/$1/job"
    # Given up while its next job was being submitted: `cancel` knew only the one before.
    [ "$kind" != slurm ] || [ ! -e "runs/$1/left" ] || limited 10 scancel "$2" >/dev/null 2>&1
    entered "$1"
}
entered() { # key -> what follows once a run has its job: out of the queue, into the journal; again and again until all of it is done
    [ -e "runs/$1/listed" ] && return 0 # for one whose end has been reported there is nothing to do any more
    enlist "$1" && unqueue "$1" && note "$1" && true >"runs/$1/listed"
}
note() { # key -> the journal of its month has the line that came with the run
    line_of "runs/$1/usage" || return 0
    ! is_usage "$line" || printf '%s\n' "$line" >>"usage/$month"
}
is_usage() { # line -> $month; a short line of plain characters whose first word is a month
    month=${1%% *}
    case $month in [0-9][0-9][0-9][0-9]-0[1-9] | [0-9][0-9][0-9][0-9]-1[0-2]) ;; *) return 1 ;; esac
    case $1 in *[!\ -~]* | *[\"\'\`]*) return 1 ;; esac
    [ ${#1} -lt 2000 ]
}
enlist() { # key -> active/ and tags/ have it (the tags stand in the run's folder)
    [ -e "active/$1" ] || { printf '%s\n\n' "$(date +%s)" >"active/.$1" && mv "active/.$1" "active/$1"; }
    [ -e "active/$1" ] || return 1
    line_of "runs/$1/tags"
    for tag in $line; do
        is_name "$tag" && mkdir -p "tags/$tag" && true >"tags/$tag/$1" || return 1
    done
}
job_of() { # key -> $job
    job=
    [ -f "runs/$1/job" ] && IFS= read -r job <"runs/$1/job"
}
is_over() { # key id -> whether another job continues that one
    [ -f "runs/$1/jobs" ] || return 1
    while IFS= read -r line; do
        [ "$line" != "$2" ] || return 0
    done <"runs/$1/jobs"
    return 1
}
answered() { # key -> $job from what sbatch printed before everybody was killed (job_submit plugins may talk too)
    job=
    [ -f "runs/$1/answer" ] || return 1
    while IFS= read -r line || [ -n "$line" ]; do
        ! is_number "${line%%;*}" || job=${line%%;*}
    done <"runs/$1/answer"
    ! is_over "$1" "$job" || job=
    [ -n "$job" ]
}
look_up() { # key seconds -> $job; 0 found, 1 there is none, 2 nobody can tell ($words)
    answered "$1" && return 0
    # %F is what sbatch answered also for the tasks of an array; the first component of a heterogeneous job has a name with -0
    job=$(limited 15 squeue --me --noheader --states=all --name="dispatch-$1,dispatch-$1-0" -o %F 2>&1) || { words=$job; return 2; }
    for job in $job; do ! is_number "$job" || is_over "$1" "$job" || return 0; done
    if command -v sacct >/dev/null; then
        job=$(limited 15 sacct -n -P -X -S now-30days --name="dispatch-$1,dispatch-$1-0" --format=JobID 2>&1)
        case $?$job in
        0*) for job in $job; do job=${job%%[_+]*}; ! is_number "$job" || is_over "$1" "$job" || return 0; done ;;
        *disabled*) ;;
        # the controller remembers for MinJobAge, usually 300 s; later only accounting knows
        *) [ "$2" -lt 240 ] || { words=$job; return 2; } ;;
        esac
    fi
    for file in "runs/$1/logs"/*_[0-9]*.out; do # a job that wrote a log has run
        job=${file##*"dispatch-$1"_} # ID, ID_START, of an array's tasks ID_TASK and ID_TASK_START
        job=${job##*"dispatch-$1-0"_}
        job=${job%.out}
        job=${job%%_*}
        [ -e "$file" ] && is_number "$job" && ! is_over "$1" "$job" && return 0
    done
    job=
    return 1
}

# ------------------------------------------------------------------ claim

claim() {
    IFS= read -r key <&3 && IFS= read -r digest <&3 && IFS= read -r group <&3 && IFS= read -r wanted_tags <&3 && IFS= read -r patience <&3 || gone
    is_hex "$key" && is_hex "$digest" && is_name "$group" && is_number "$patience" || { fail cluster.bad-request "claim"; return; }
    [ "$kind" != slurm ] || command -v sbatch >/dev/null || { fail cluster.no-sbatch "sbatch is not in $PATH"; return; }
    give_back
    resumed=no tries=0 fresh="tmp/new.$token.$key"
    while :; do
        if [ -e "runs/$key/job" ] || [ -e "runs/$key/held" ] || [ -e "runs/$key/dropped" ]; then
            already
            return
        elif [ ! -e "runs/$key" ]; then
            # The folder appears with its owner in it, or not at all; where one exists, mv puts ours inside it.
            words=$(mkdir -p "$fresh" 2>&1 && { true >"$fresh/claim.$token"; } 2>&1 && mv "$fresh" "runs/$key" 2>&1) || {
                [ -e "runs/$key" ] || [ -z "$words" ] || { rm -rf "$fresh"; failed "$words"; return; }
            }
            [ ! -e "runs/$key/claim.$token" ] || break
            rm -rf "runs/$key/${fresh##*/}" "$fresh"
        else
            take_over && break
            [ ! -e "runs/$key/job" ] && [ ! -e "runs/$key/held" ] || continue
            [ "$tries" != stop ] || return
        fi
        tries=$((tries + 1))
        if [ "$tries" -gt $((patience * 3)) ]; then
            age "runs/$key"
            if [ -n "$state" ] || [ "$seconds" -lt 300 ]; then say done busy "$seconds"; else fail cluster.broken-run "$PWD/runs/$key"; fi
            return
        fi
        sleep 0.3 || sleep 1
    done
    claimed=$key
    printf '%s\n' "$wanted_tags" >"runs/$key/tags"
    offer
}
wrest() { # key -> 0: whoever had it is gone, and it is ours as $state.$token; 1: somebody has it, or it is in nobody's hands
    holder "$1"
    [ -n "$state" ] || return 1
    age "runs/$1/$state.$owner"
    [ "$owner" != "$token" ] || return 0
    lives "$owner"
    alive=$?
    if [ "$state" = commit ]; then
        # Its sbatch may have been killed in mid-request: what the controller took in has to become visible first.
        { [ "$alive" = 1 ] && [ "$seconds" -gt 3 ]; } || { [ "$alive" = 2 ] && [ "$seconds" -gt 300 ]; } || return 1
    else
        [ "$alive" = 1 ] || [ "$seconds" -gt 120 ] || return 1
    fi
    mv "runs/$1/$state.$owner" "runs/$1/$state.$token"
    [ -e "runs/$1/$state.$token" ]
}
found() { # key -> after a commit was wrested: 0 it has a job, which is entered now; 1 it has none; 2 nobody can tell ($words)
    [ "$kind" = slurm ] || return 1
    look_up "$1" "$seconds" || return $?
    enter_job "$1" "$job"
}
take_over() { # 0: the run is ours now; 1: it is not (sets $tries to stop when the answer has been given)
    wrest "$key" || return 1
    if [ "$state" = commit ] && [ "$kind" = api ]; then # whether there is a job, only the client can ask
        tries=stop claimed=$key
        show record "$key"
        say done orphan
        return 1
    fi
    if [ "$state" = commit ]; then
        found "$key"
        case $? in
        0) return 1 ;;
        2) tries=stop; fail cluster.scheduler-silent "$words"; return 1 ;;
        esac
    fi
    if [ "$state" = turn ] || { [ "$state" = commit ] && { queued_as "$key" || [ -s "runs/$key/commit.$token" ]; }; }; then
        wait_again "$key"
        return 1
    fi
    [ "$state" = claim ] || mv "runs/$key/commit.$token" "runs/$key/claim.$token"
    [ -e "runs/$key/claim.$token" ] || return 1
    touch -c "runs/$key/claim.$token"
    for file in "runs/$key"/* "runs/$key"/.[!.]*; do
        [ "$file" = "runs/$key/claim.$token" ] || rm -rf "$file"
    done
    resumed=yes
}
already() { # the run has a job, or a place in the queue, or has lost that
    job=
    if [ -e "runs/$key/job" ]; then
        entered "$key"
        job_of "$key"
    elif [ -e "runs/$key/held" ]; then
        enqueue "$key"
    fi
    show record "$key"
    say done already "${job:--}"
}
offer() { # says what the cluster has of the code, and unpacks that already while the client is busy elsewhere
    mkdir "runs/$key/logs"
    ready= base=
    IFS= read -r base <"packages/$digest.base" || base=
    if [ -e "packages/$digest.tar" ] || { [ -e "packages/$digest.delta.tar" ] && [ -e "packages/$base.tar" ]; }; then
        say done claimed "$resumed" have -
        words=$(unpack "$digest" 2>&1) && ready=$digest
        words="${words:-tar} =failed"
        return
    fi
    IFS= read -r base <"packages/groups/$group" || base=
    if is_hex "$base" && [ -e "packages/$base.tar" ] && [ -e "packages/$base.files.gz" ]; then
        begin base
        cat "packages/$base.files.gz" >&4
        end base
        say done claimed "$resumed" need "$base"
        words=$(unpack "$base" 2>&1) && ready=$base
    else
        say done claimed "$resumed" need -
    fi
}
unpack() { # digest -> code/
    if [ -e "packages/$1.tar" ]; then
        place "$1"
    else
        IFS= read -r under <"packages/$1.base" && is_hex "$under" && place "$under" && without "packages/$1.delete" &&
            tar -xmof "packages/$1.delta.tar" -C "runs/$key/code" && touch -c "packages/$1.delta.tar"
    fi
}
place() { # digest of a whole package -> code/, from the tree that lies ready or from the archive
    # Where old files are purged, an old tree may have holes.
    if [ -n "$(find "packages/$1.tree" -maxdepth 0 -mtime -2)" ] && mv "packages/$1.tree" "runs/$key/code"; then return; fi
    mkdir "runs/$key/code" && tar -xmof "packages/$1.tar" -C "runs/$key/code" && touch -c "packages/$1.tar"
}
lay_ready() { # unpacks the group's newest whole package once more, for the next one: to make files is what takes longest
    IFS= read -r newest <"packages/groups/$group" && is_hex "$newest" && [ ! -e "packages/$newest.tree" ] || return 0
    (
        exec 3<&- 4>&-
        room=$(df -Pk . | { read -r line && read -r device all used free line && printf '%s' "$free"; }) size=$(stat -c %s "packages/$newest.tar") || exit
        [ "$room" -gt $((size / 100)) ] || exit # jobs need what is left more than the next submission does
        mkdir "tmp/tree.$newest" || exit # somebody else does it
        IFS= read -r older <"packages/groups/$group.tree" || older=
        [ "$older" = "$newest" ] || ! is_hex "$older" || rm -rf "packages/$older.tree"
        printf '%s\n' "$newest" >"packages/groups/$group.tree"
        [ -e "packages/$newest.tree" ] || ! nice tar -xmof "packages/$newest.tar" -C "tmp/tree.$newest" ||
            mv "tmp/tree.$newest" "packages/$newest.tree"
        rm -rf "tmp/tree.$newest"
    ) &
}
without() { # list of paths, each ended by NUL -> they are no longer in code/
    [ ! -s "$1" ] || (cd "runs/$key/code" && xargs -0 rm -rf --) <"$1"
}

# ------------------------------------------------------------------ submit

submit() {
    IFS= read -r wanted <&3 && IFS= read -r mode <&3 && IFS= read -r length <&3 && is_number "$length" || gone
    exactly
    key=$wanted bad=
    ours=claim.$token
    [ "$key" = "$claimed" ] && [ -e "runs/$key/$ours" ] || bad=lost
    if [ -z "$bad" ]; then
        bad=$(take "$length" | { { tar -xmof - -C "runs/$key" || echo =failed >&2; cat >/dev/null; } 2>&1; })
        judge
    else
        take "$length" >/dev/null
    fi
    case $mode in
    have) [ -n "$bad" ] || [ "$ready" = "$digest" ] || bad="$words" ;;
    whole | delta) receive ;;
    none) ;;
    *) gone ;;
    esac
    IFS= read -r go <&3 || gone
    if [ "$go" != go ] && [ "$go" != hold ]; then # the archive could not be made
        rm -f "tmp/package.$token"
        give_back
        say done stopped
        return
    fi
    [ -e "runs/$key/$ours" ] || bad=lost # whatever else went wrong then, it went wrong because of that
    # From here on everything is here, and it is finished even when nobody listens any more.
    [ -n "$bad" ] || [ "$mode" = have ] || [ "$mode" = none ] || { bad=$(keep 2>&1 || echo =failed); judge; }
    [ -n "$bad" ] || { bad=$(enlist "$key" 2>&1 || echo =failed); judge; }
    [ -n "$bad" ] || [ "$go" = go ] || { bad=$(enqueue "$key" 2>&1 || echo =failed); judge; }
    if [ "$bad" = lost ]; then
        lost
    elif [ -n "$bad" ]; then
        rm -f "tmp/package.$token"
        unlist "$key"
        give_back
        failed "$bad"
    elif [ "$go" = hold ]; then
        mv "runs/$key/$ours" "runs/$key/held"
        if [ ! -e "runs/$key/held" ]; then
            lost
            return
        fi
        rm -f "active/$key"
        claimed=
        say done held
        lay_ready
    else
        hand_over
        [ ! -e "runs/$key/job" ] || lay_ready
    fi
}
hand_over() { # what lies ready and is held as $ours -> the scheduler, or this machine
    case $kind in
    local) start_local ;;
    api) leave_to_client ;;
    *)
        import_images
        run_sbatch
        ;;
    esac
}
import_images() { # where the profile wants images imported here: a process of its own, for which the job waits
    line_of "runs/$key/images" && [ "$line" = login ] || return 0
    if command -v setsid >/dev/null; then session=setsid; else session=; fi
    (
        trap - INT TERM PIPE QUIT
        cd "runs/$key" && exec $session sh image.sh images login >logs/image.log 2>&1 3<&- 4>&- </dev/null
    ) &
    child=$!
    # its first word says that it has the lock, or needs none: a job that starts at once must not come before it
    while [ ! -s "runs/$key/logs/image.log" ] && started "$child"; do sleep 0.02 || sleep 1; done
}
leave_to_client() { # the client starts the job, and says then what came of it (`enter`, `unlaunched`)
    mv "runs/$key/$ours" "runs/$key/commit.$token"
    if [ ! -e "runs/$key/commit.$token" ]; then
        lost
        return
    fi
    claimed=
    say done yours
}
enter() { # key job: the client has started the job of a run that is its own, or has found it
    IFS= read -r key <&3 && IFS= read -r job <&3 || gone
    is_hex "$key" && is_job "$job" || { fail cluster.bad-request enter; return; }
    [ -e "runs/$key/commit.$token" ] || { fail cluster.claim-lost "$key"; return; }
    words=$(enter_job "$key" "$job" 2>&1)
    claimed=
    if [ -e "runs/$key/job" ]; then say done submitted "$job"; else failed "$words"; fi
}
unlaunched() { # key what: the API has refused the job, or there never was one and it is to be begun again
    IFS= read -r key <&3 && IFS= read -r what <&3 || gone
    is_hex "$key" || { fail cluster.bad-request unlaunched; return; }
    [ -e "runs/$key/commit.$token" ] || { fail cluster.claim-lost "$key"; return; }
    state=commit claimed=
    if queued_as "$key"; then
        wait_again "$key"
        say done held
    elif [ "$what" = again ]; then
        mv "runs/$key/commit.$token" "runs/$key/claim.$token"
        for file in "runs/$key"/* "runs/$key"/.[!.]*; do
            [ "$file" = "runs/$key/claim.$token" ] || rm -rf "$file"
        done
        mkdir "runs/$key/logs"
        claimed=$key
        say done claimed yes
    else
        mv "runs/$key" "tmp/gone.$token.$key"
        unlist "$key"
        say done refused
        rm -rf "tmp/gone.$token.$key"
    fi
}
bring() { # key -> what the client needs to start a run that lies ready
    IFS= read -r key <&3 || gone
    is_hex "$key" || { fail cluster.bad-request bring; return; }
    for file in configs/launch.json env; do
        begin "${file##*/}"
        [ ! -f "runs/$key/$file" ] || head -c 4194304 "runs/$key/$file" >&4
        end "${file##*/}"
    done
    say done
}
log_kept() { # key length bytes -> the log of a job that has ended, before the API forgets it
    IFS= read -r key <&3 && IFS= read -r length <&3 && is_hex "$key" && is_number "$length" || gone
    store "tmp/log.$token"
    IFS= read -r go <&3 && [ "$go" = go ] || gone
    [ -n "$words" ] || words=$(mv "tmp/log.$token" "runs/$key/logs/job.log" 2>&1)
    rm -f "tmp/log.$token"
    if [ -z "$words" ]; then say done; else failed "$words"; fi
}
judge() { # tar and its like also warn: $bad counts only where somebody said so
    case $bad in *=failed*) bad=${bad%=failed*} bad=${bad:-failed} ;; *) bad= ;; esac
}
receive() { # the archive's frames -> code/ and tmp/, all at once; $bad says what went wrong
    if [ -n "$bad" ]; then
        chunks >/dev/null
        return
    fi
    if [ "$mode" = whole ]; then
        bad=$({ rm -rf "runs/$key/code" && mkdir "runs/$key/code"; } 2>&1 || echo =failed)
    elif [ "$ready" != "$base" ] || [ -z "$base" ]; then
        bad="$words =failed"
    else
        bad=$(without "runs/$key/.delete" 2>&1 || echo =failed)
    fi
    bad=$bad$({
        { chunks || echo =failed >&5; } 2>&5 | { gzip -dc || echo =failed >&5; cat >/dev/null; } 2>&5 |
            { tee "tmp/package.$token" || echo =failed >&5; } 2>&5 | { tar -xmof - -C "runs/$key/code" || echo =failed >&5; cat >/dev/null; } 2>&5
    } 5>&1 >/dev/null)
    judge
}
keep() { # the archive that has arrived whole -> packages/, whole or as a difference to its base
    if [ "$mode" = delta ]; then
        printf '%s\n' "$base" >"tmp/base.$token" && mv "tmp/base.$token" "packages/$digest.base" &&
            mv "runs/$key/.delete" "packages/$digest.delete" && mv "tmp/package.$token" "packages/$digest.delta.tar"
    else
        mv "runs/$key/.files.gz" "packages/$digest.files.gz" && mv "tmp/package.$token" "packages/$digest.tar" &&
            printf '%s\n' "$digest" >"tmp/group.$token" && mv "tmp/group.$token" "packages/groups/$group"
    fi
}
lost() { # somebody else took the run over, because we were silent for too long: what became of it there is the answer
    claimed= tries=0 state=turn
    [ ! -e "runs/$key/turn.$token" ] || wait_again "$key" # a process could not be started
    while [ ! -e "runs/$key/job" ] && [ ! -e "runs/$key/held" ] && [ "$tries" -lt 60 ]; do
        tries=$((tries + 1))
        sleep 0.3 || sleep 1
    done
    if [ -e "runs/$key/job" ]; then
        job_of "$key"
        say done submitted "$job"
    elif [ -e "runs/$key/held" ]; then
        say done held
    else
        fail cluster.claim-lost "$key"
    fi
}
unlist() {
    unqueue "$1"
    rm -f "active/$1" "tags"/*/"$1"
}
# Becomes sbatch, or the local job, under the identity that it has put into the run's folder. Arguments: $ours, boot, locale, is it set.
become='
since() { start=${20}; }
start=0
! IFS= read -r stat <"/proc/$$/stat" || since ${stat##*) }
mv "$1" "commit.$2.$$.$start"
[ -e "commit.$2.$$.$start" ] || exit 1
if [ -n "$4" ]; then LC_ALL=$3; else unset LC_ALL; fi
'
run_sbatch() {
    (
        cd "runs/$key" && exec sh -c "${become}exec sbatch --parsable job.sbatch" sh "$ours" "$boot" "$outer_locale" "$outer_locale_set" 3<&- 4>&- >answer 2>words
    ) &
    wait $!
    status=$?
    holder "$key"
    if [ "$state" != commit ]; then
        lost
        return
    fi
    claimed=
    words=$(head -c 4000 "runs/$key/words")
    if [ "$status" = 0 ] && answered "$key"; then
        enter_job "$key" "$job"
    else
        case $status$words in
        # it may have got through nevertheless
        0* | 1[3-9]?* | *'imed out'* | *'onnect'* | *'contact'* | *'ommunication'*)
            sleep 2
            look_up "$key" 0
            case $? in
            0) enter_job "$key" "$job" ;;
            2) fail cluster.scheduler-silent "$words"; return ;;
            *) refused; return ;;
            esac
            ;;
        *) refused; return ;;
        esac
    fi
    say done submitted "$job"
}
refused() {
    case $words in
    '') words="sbatch ended with status $status" ;;
    esac
    case $ours in
    turn.*) # it waits as before, until whoever released it has said so and drops it; or its ended job was its last one
        holder "$key"
        rm -f "runs/$key/answer" "runs/$key/words"
        if [ -s "runs/$key/commit.$owner" ]; then
            mv "runs/$key/commit.$owner" "runs/$key/job"
            text words "$words"
            say done refused
            return
        fi
        enqueue "$key" && mv "runs/$key/commit.$owner" "runs/$key/held" && rm -f "active/$key"
        text words "$words"
        say done refused
        return
        ;;
    esac
    mv "runs/$key" "tmp/gone.$token.$key"
    unlist "$key"
    text words "$words"
    say done refused
    rm -rf "tmp/gone.$token.$key"
}
start_local() {
    IFS= read -r first <"runs/$key/job.sbatch" || first=
    shell=sh
    case $first in '#!'*bash*) ! command -v bash >/dev/null || shell=bash ;; esac
    if command -v setsid >/dev/null; then session=setsid; else session=; fi
    (
        trap - INT TERM PIPE QUIT # what is ignored now could never be caught by the job
        cd "runs/$key" && exec $session sh -c "$become"'
            printf "%s\n" "$$-$start" >job.new && mv job.new job || exit 1
            shell=$5
            "$shell" job.sbatch >logs/local.log 2>&1
            printf "%s\n" $? >exit.new && mv exit.new exit
        ' sh "$ours" "$boot" "$outer_locale" "$outer_locale_set" "$shell" 3<&- 4>&- </dev/null
    ) &
    child=$!
    while [ ! -e "runs/$key/job" ] && started "$child"; do sleep 0.02 || sleep 1; done
    if [ -e "runs/$key/job" ]; then
        claimed=
        job_of "$key"
        entered "$key"
        say done submitted "$job"
    else
        lost
    fi
}

# ------------------------------------------------------------------ the queue

queued_as() { # key -> $entry, its place in the queue; 1 when it has none
    for entry in queue/*."$1"; do
        [ ! -e "$entry" ] || return 0
    done
    return 1
}
enqueue() { # key -> queue/ has it, behind all others; where it is already, there it stays
    queued_as "$1" && return 0
    place=$(date +%s) || return 1
    for entry in queue/*; do
        last=${entry#queue/}
        last=${last%%.*}
        case $last in [0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]) ;; *) continue ;; esac
        while case $last in 0?*) ;; *) false ;; esac; do last=${last#0}; done
        [ "$last" -lt "$place" ] || place=$((last + 1))
    done
    place=$(printf %012d "$place") && true >"queue/$place.$1"
}
unqueue() { # key -> not in queue/ any more
    while queued_as "$1"; do rm -f "$entry" || return 1; done
}
wait_again() { # key -> what is ours as $state.$token is as it was before: it has its ended job, or waits in the queue
    if [ -s "runs/$1/$state.$token" ]; then
        mv "runs/$1/$state.$token" "runs/$1/job"
        return
    fi
    enqueue "$1" && mv "runs/$1/$state.$token" "runs/$1/held" && rm -f "active/$1"
}
waiting() { # -> $waiting, keys in the order of the queue with a space around each; entries of runs that no longer wait go away
    waiting=' '
    for entry in queue/*; do
        key=${entry##*.}
        is_hex "$key" || continue
        if [ -e "runs/$key/dropped" ]; then
            enlist "$key" && rm -f "$entry" # its end is still to be said
        elif [ ! -e "runs/$key" ] || [ -e "runs/$key/job" ]; then
            rm -f "$entry"
        elif [ -e "runs/$key/held" ]; then
            waiting="$waiting$key "
        else
            holder "$key" # while it is a claim, it is not in the queue yet
            case $state in turn | commit) waiting="$waiting$key " ;; esac
        fi
    done
}
settle() { # key -> a dead releaser's run is put right: its job is entered, or it waits again; 1 its releaser lives, 2 nobody can tell ($words)
    settled=
    [ ! -e "runs/$1/job" ] && [ ! -e "runs/$1/held" ] && queued_as "$1" || return 0
    holder "$1"
    case $state in turn | commit) ;; *) return 0 ;; esac
    wrest "$1" || return 1
    if [ "$state" = commit ]; then
        found "$1"
        case $? in
        0) settled=yes && return 0 ;;
        2) return 2 ;;
        esac
    fi
    wait_again "$1"
}
of_queue() { # reads a key -> 0 it is held; 1 the answer has been given
    IFS= read -r key <&3 || gone
    is_hex "$key" || { fail cluster.bad-request queue; return 1; }
    [ ! -e "runs/$key/job" ] || { say done gone; return 1; }
    settle "$key"
    case $? in
    2) fail cluster.scheduler-silent "$words" ;;
    *)
        [ ! -e "runs/$key/held" ] || return 0
        # Only who put it right has released it; whoever came while another did has not.
        if [ -n "$settled" ] && job_of "$key"; then say done submitted "$job"; else say done gone; fi
        ;;
    esac
    return 1
}
release() { # a queued run's turn has come: the rest of what `submit` does
    of_queue || return
    # Who has lost the admission lock has decided on what is no longer true.
    [ -z "$locked" ] || [ -e "lock/held.$token" ] || { say done gone; return; }
    ours=turn.$token
    touch -c "runs/$key/held" # before it is ours: an old turn may be taken from us
    mv "runs/$key/held" "runs/$key/$ours"
    [ -e "runs/$key/$ours" ] || { say done gone; return; }
    bad=$(enlist "$key" 2>&1 || echo =failed)
    judge
    if [ -n "$bad" ]; then
        state=turn
        wait_again "$key"
        failed "$bad"
    else
        hand_over
    fi
}
go_on() { # key id path: the run's job has ended, and the next one goes on from what it has saved in path
    IFS= read -r key <&3 && IFS= read -r ended <&3 && IFS= read -r saved <&3 || gone
    is_hex "$key" && is_number "$ended" && is_inside "$saved" || { fail cluster.bad-request go_on; return; }
    # Without a job: somebody else is at it, or died there; then `claim` puts it right.
    job_of "$key" && [ "$kind" = slurm ] && [ ! -L "runs/$key/job" ] || { say done gone; return; }
    [ "$job" = "$ended" ] || { say done submitted "$job"; return; }
    # What came with the code lay there before there was a job. When that was must not be forgotten by an attempt that is cut off.
    since=runs/$key/since.$ended
    [ -e "$since" ] || { touch -r "runs/$key/job" "tmp/since.$token" && mv "tmp/since.$token" "$since"; }
    found=$( (trap - PIPE && limited 60 find -H "runs/$key/$saved" -type f -newer "$since") | head -n 1)
    [ -n "$found" ] || { say done unchanged; return; }
    [ -f "runs/$key/jobs" ] || rm -rf "runs/$key/jobs"
    words=$({ is_over "$key" "$ended" || printf '%s\n' "$ended" >>"runs/$key/jobs"; } 2>&1) || { failed "$words"; return; }
    for file in "runs/$key"/commit.*; do # of earlier jobs; one with this job's id is somebody's who does the same right now
        { line_of "$file" && [ "$line" = "$ended" ]; } || rm -rf "$file"
    done
    ours=turn.$token
    touch -c "runs/$key/job" # before it is ours: an old turn may be taken from us
    mv "runs/$key/job" "runs/$key/$ours"
    line_of "runs/$key/$ours" || { say done gone; return; }
    job=$line
    if [ "$job" != "$ended" ]; then # somebody was quicker: it was the next job's
        mv "runs/$key/$ours" "runs/$key/job"
        say done submitted "$job"
        return
    fi
    if [ -e "runs/$key/left" ]; then # given up after whoever asks has looked at it: the next look ends it
        mv "runs/$key/$ours" "runs/$key/job"
        say done gone
        return
    fi
    rm -f "runs/$key/answer" "runs/$key/words" "runs/$key/exit" "runs/$key/started"
    # What was said of it is not true any more, whoever is to say so.
    ! IFS= read -r since <"active/$key" || { printf '%s\nunreported\n' "$since" >"tmp/active.$token" && mv "tmp/active.$token" "active/$key"; }
    hand_over
}
drop() {
    of_queue || return
    words=$(mv "runs/$key/held" "runs/$key/dropped" 2>&1)
    if [ -e "runs/$key/dropped" ]; then
        enlist "$key" && unqueue "$key" # it is active until its end has been said
        say done dropped
    elif [ -e "runs/$key/held" ]; then
        failed "$words"
    else
        say done gone
    fi
}
lock() { # the one lock under which runs are admitted: lock/free or lock/held.BOOT.PID.START, and only a rename changes it
    IFS= read -r patience <&3 && is_number "$patience" || gone
    tries=0
    while :; do
        words=
        [ -e lock ] || words=$(mkdir "tmp/lock.$token" 2>&1 && true >"tmp/lock.$token/free" && mv "tmp/lock.$token" lock 2>&1)
        rm -rf "tmp/lock.$token" "lock/lock.$token" # one that came second lies inside the first
        [ -e lock ] || [ -z "$words" ] || { failed "$words"; return; }
        owner=
        for file in lock/free lock/held.*; do
            [ ! -e "$file" ] || owner=${file#lock/}
        done
        case $owner in
        '') rmdir lock ;; # emptied from outside: a folder that is empty now can have no owner
        "held.$token") ;;
        free) seize ;;
        *)
            lives "${owner#held.}"
            alive=$?
            age "lock/$owner"
            if [ "$alive" = 1 ] || [ "$seconds" -gt 120 ]; then seize; fi
            ;;
        esac
        if [ -e "lock/held.$token" ]; then
            locked=yes
            say done locked
            return
        fi
        tries=$((tries + 1))
        [ "$tries" -le $((patience * 3)) ] || { say done busy; return; }
        sleep 0.3 || sleep 1
    done
}
seize() { # $owner's lock, which must be fresh before it has our name
    touch -c "lock/$owner"
    mv "lock/$owner" "lock/held.$token"
}
unlock_ledger() {
    [ -z "$locked" ] || mv "lock/held.$token" lock/free
    locked=
}
unlock() {
    unlock_ledger
    say done
}
show() { # section key -> the record; an empty one for a run with a job whose record is none; bigger ones are not ours
    [ -e "runs/$2/record.json" ] || [ -e "runs/$2/job" ] || return 0
    begin "$1"
    [ ! -f "runs/$2/record.json" ] || head -c 1048576 "runs/$2/record.json" >&4
    end "$1"
}
standing() {
    waiting
    queue=' ' busy=' ' count=0
    for key in $waiting; do
        settle "$key"
        if [ -e "runs/$key/held" ]; then
            queue="$queue$key "
            [ "$count" -ge 1000 ] || show queued "$key" # nobody's turn comes soon behind so many
            count=$((count + 1))
        elif [ -e "runs/$key" ] && [ ! -e "runs/$key/dropped" ] && [ ! -e "active/$key" ]; then
            busy="$busy$key "
        fi
    done
    count=0
    for file in active/* $busy; do
        key=${file##*/}
        is_hex "$key" || continue
        case $queue in *" $key "*) continue ;; esac
        count=$((count + 1))
        # Too few counted would be too many admitted.
        [ "$count" -le 4000 ] || { fail cluster.failed "more than 4000 runs are active"; return; }
        show active "$key"
    done
    say done
}
usage() {
    IFS= read -r month <&3 || gone
    is_usage "$month" || { fail cluster.bad-request usage; return; }
    begin usage
    tail -c 4194304 "usage/$month" >&4
    end usage
    say done
}
adopt() { # key other length record -> a claimed run has what another one has: its job, code, logs and exit status
    IFS= read -r key <&3 && IFS= read -r other <&3 && IFS= read -r length <&3 && is_hex "$other" && is_number "$length" || gone
    store "tmp/record.$token"
    IFS= read -r go <&3 && [ "$go" = go ] || gone
    if [ "$key" != "$claimed" ] || [ ! -e "runs/$key/claim.$token" ]; then
        fail cluster.claim-lost "$key"
        return
    fi
    # Somebody has taken it away, or only what is old: whoever has found it runs by itself.
    job_of "$other" || { rm -f "tmp/record.$token"; say done gone; return; }
    # A link: when another job continues that one, it is this run's, too.
    [ -n "$words" ] || words=$({ mv "tmp/record.$token" "runs/$key/record.json" && enlist "$key" && ln -s "../$other/job" "runs/$key/job"; } 2>&1) || words=${words:-failed}
    rm -f "tmp/record.$token"
    # First it is among those who have the job, then it looks; `cancel` does both the other way round, so one of the two sees the other.
    if [ -z "$words" ] && [ -e "runs/$other/left" ]; then
        true >"runs/$key/left"
        others_with "$key"
        [ -n "$others" ] || [ "$kind" != slurm ] || limited 10 scancel "$job"
        rm -f "runs/$key/job" "runs/$key/left" "runs/$key/record.json"
        unlist "$key"
        say done gone
        return
    fi
    [ -n "$words" ] || words=$({ rm -rf "runs/$key/logs" "runs/$key/code" && ln -s "../$other/logs" "../$other/code" "../$other/exit" "runs/$key/"; } 2>&1) || words=${words:-failed}
    if [ -e "runs/$key/job" ]; then
        entered "$key"
        claimed=
        say done submitted "$job"
    else
        failed "$words"
    fi
}
history() { # name -> its lines
    IFS= read -r name <&3 || gone
    is_hex "$name" || { fail cluster.bad-request history; return; }
    begin history
    tail -c 1048576 "history/$name" >&4
    end history
    say done
}
remember() { # name length line -> the line is added, in one write
    IFS= read -r name <&3 && IFS= read -r length <&3 && is_hex "$name" && is_number "$length" || gone
    store "tmp/line.$token"
    IFS= read -r go <&3 && [ "$go" = go ] || gone
    # where a disk was full the last line may have no end: this one is none of it
    [ ! -s "history/$name" ] || [ -z "$(tail -c 1 "history/$name")" ] || echo >>"history/$name"
    [ -n "$words" ] || words=$({ cat "tmp/line.$token" >>"history/$name"; } 2>&1)
    rm -f "tmp/line.$token"
    if [ -z "$words" ]; then say done; else failed "$words"; fi
}
account() {
    IFS= read -r line <&3 || gone
    is_usage "$line" || { fail cluster.bad-request account; return; }
    words=$({ printf '%s\n' "$line" >>"usage/$month"; } 2>&1) || words=${words:-failed}
    if [ -z "$words" ]; then say done; else failed "$words"; fi
}

# ------------------------------------------------------------------ look

newest_of() { # files, as patterns find them -> $log, the newest one
    log=
    for file; do
        case ${file##*/} in *[!A-Za-z0-9._%+-]*) continue ;; esac
        [ -f "$file" ] || continue
        [ -n "$log" ] && [ ! "$file" -nt "$log" ] || log=$file
    done
    [ -n "$log" ]
}
named_of() { # key -> $named, the run whose name its logs bear: of one that has what another one has, that one
    named=$1
    [ ! -L "runs/$1/logs" ] || named=$(cd -P "runs/$1/logs" && cd .. && pwd -P) || named=$1
    named=${named##*/}
    is_hex "$named" || named=$1
}
log_of_part() { # key number -> $log, that of one task of an array, of one component of a heterogeneous job, or of one job of a chain
    # an array's: KEY_JOB_TASK_START; a component's: KEY-NUMBER_JOB_START; any other's: KEY_JOB_START.
    # Until the program starts there is only the batch script's.
    named_of "$1"
    newest_of "runs/$1/logs/log-dispatch-$named"_*_"$2"_*.out "runs/$1/logs/log-dispatch-$named-$2"_*_*.out ||
        newest_of "runs/$1/logs/log-dispatch-${named}_$2"_[0-9].out "runs/$1/logs/log-dispatch-${named}_$2"_[0-9][0-9].out ||
        newest_of "runs/$1/logs/sbatch_dispatch-$named"_*_"$2".out "runs/$1/logs/sbatch_dispatch-${named}_$2".out
}
log_of() { # key -> $log, the newest log that the job writes; of an array that of a task that failed
    log=
    named_of "$1"
    for file in "runs/$named"/exit.*[0-9]; do
        { line_of "$file" && [ "$line" != 0 ]; } || continue
        for file in "runs/$1/logs/log-dispatch-$named"_*_"${file##*.}"_*.out; do
            case ${file##*/} in *[!A-Za-z0-9._%+-]*) continue ;; esac
            [ ! -f "$file" ] || log=$file
        done
        [ -z "$log" ] || return 0
    done
    for pattern in 'log-*.out' 'sbatch_*.out' '*.out' '*.log'; do
        ! newest_of "runs/$1/logs"/$pattern || return 0
    done
    return 1
}
log_of_batch() { # key -> $log, what the newest job's batch script printed; of an array that of a task that failed
    named_of "$1"
    for file in "runs/$named"/exit.*[0-9]; do
        { line_of "$file" && [ "$line" != 0 ]; } || continue
        ! newest_of "runs/$1/logs/sbatch_dispatch-$named"_*_"${file##*.}".out || return 0
    done
    newest_of "runs/$1/logs"/sbatch_*.out
}
answer_of() { # name command... -> both its streams and its status, never for longer than 10 s
    section=$1
    shift
    begin "$section"
    words=$({ limited 10 "$@" >&4; } 2>&1)
    status=$?
    end "$section"
    text "$section.words" "$(printf '%s' "$words" | head -c 4000)"
    text "$section.status" "$status"
}
sweep() {
    waiting
    text queued "$waiting"
    ids= logs=
    set --
    begin runs
    for file in active/*; do
        key=${file##*/}
        is_hex "$key" || continue
        if [ ! -e "runs/$key" ]; then
            rm -f "$file"
            continue
        fi
        case $waiting in
        *" $key "*)
            [ ! -e "runs/$key/held" ] || rm -f "$file" # whoever put it there died before the end
            [ -e "runs/$key/job" ] || continue
            ;;
        esac
        since=0 reported=- exit=- alive=no
        [ ! -f "$file" ] || { IFS= read -r since; IFS= read -r reported; } <"$file"
        if job_of "$key"; then entered "$key"; elif answered "$key"; then enter_job "$key" "$job"; fi
        [ ! -f "runs/$key/exit" ] || ! read -r exit <"runs/$key/exit" || :
        if [ "$kind" = local ] && [ "$exit" = - ] && started "${job%%-*}" && [ "$start" = "${job##*-}" ]; then alive=yes; fi
        ! log_of "$key" || set -- "$@" "$log"
        printf '%s %s %s %s %s %s\n' "$key" "${job:--}" "${since:-0}" "$exit" "$alive" "$reported" >&4
        case $job in '' | *[!0-9]*) ;; *) ids=$ids,$job ;; esac
    done
    end runs
    begin sizes
    [ $# = 0 ] || printf '%s\n' "$@" | xargs stat -L -c '%s %n' >&4
    end sizes
    if [ "$kind" = slurm ] && [ -n "$ids" ]; then
        SLURM_TIME_FORMAT=%s SLURM_BITSTR_LEN=0 # no list of an array's tasks is cut
        export SLURM_TIME_FORMAT SLURM_BITSTR_LEN
        answer_of squeue squeue --me --noheader --states=all -o '%i|%T|%r|%S|%j|%N|%Q'
        # Everybody's waiting jobs, the next one first: on a big cluster a long list, so only where one of ours is in it.
        # A scheduler that has just not answered is not asked again: it would be waited for as long once more.
        [ "$status" != 0 ] || [ -z "$(limited 10 squeue --me --noheader --states=PENDING -o %i | head -n 1)" ] ||
            answer_of pending sh -c 'squeue --noheader --states=PENDING --sort=-p,i -o "%P|%F|%r" | head -n 5000'
        answer_of sacct sacct -n -P -X -j "${ids#,}" --format=JobID,State,ExitCode,Start,End,ElapsedRaw,NodeList,Reason
        unset SLURM_TIME_FORMAT SLURM_BITSTR_LEN
    fi
    find tmp -mindepth 1 -maxdepth 1 -mmin +1440 -exec rm -rf {} +
    say done "$(date +%s)"
}
details() { # scontrol for a few jobs that neither squeue nor sacct knows
    IFS= read -r ids <&3 || gone
    SLURM_TIME_FORMAT=%s SLURM_BITSTR_LEN=0
    export SLURM_TIME_FORMAT SLURM_BITSTR_LEN
    begin scontrol
    words= status=0
    for job in $ids; do
        is_number "$job" || continue
        error=$({ limited 5 scontrol -o show job "$job" >&4; } 2>&1) || { status=$? words="$words$error
"; }
        case $status in 124 | 137) break ;; esac
    done
    end scontrol
    unset SLURM_TIME_FORMAT SLURM_BITSTR_LEN
    text scontrol.words "$words"
    text scontrol.status "$status"
    say done
}
events() { # folder cap -> section results: the end of its TensorBoard event files, the oldest first; $length, how long they are together
    cap=$2
    set -- "$1"/events.out.tfevents.* # the name goes on with the second in which the file was begun
    [ $# -le 64 ] || shift $(($# - 64))
    for file in "$@"; do
        shift
        [ ! -f "$file" ] || set -- "$@" "$file" # no pipe, which would never end
    done
    [ $# -le 8 ] || shift $(($# - 8))
    [ $# -gt 0 ] || return 0
    length=$(stat -L -c %s "$@" | { sum=0; while read -r bytes; do sum=$((sum + bytes)); done; echo "$sum"; })
    begin results
    for file in "$@"; do tail -c "$cap" "$file" | head -c "$cap"; done | tail -c "$cap" >&4
    end results
}
fetch() {
    IFS= read -r key <&3 && IFS= read -r offset <&3 && IFS= read -r log_cap <&3 && IFS= read -r results_cap <&3 && IFS= read -r results <&3 && IFS= read -r part <&3 || gone
    is_hex "$key" && is_number "${offset#-}" && is_number "$log_cap" && is_number "${results_cap#-}" && is_inside "$results" &&
        case $part in - | batch) ;; *) is_number "$part" ;; esac || { fail cluster.bad-request fetch; return; }
    # Of a run with a job the record is missing only where somebody has taken it away, and that must not look like no run.
    [ -e "runs/$key/record.json" ] || [ -e "runs/$key/job" ] || { say done unknown; return; }
    show record "$key"
    [ ! -f "runs/$key/left" ] || text left "$(head -c 1000 "runs/$key/left")"
    size=0
    case $part in
    -) log_of "$key" ;;
    batch) log_of_batch "$key" ;;
    *) log_of_part "$key" "$part" ;;
    esac
    if [ -n "$log" ]; then
        size=$(stat -L -c %s "$log") || size=0
        [ "$offset" -ge 0 ] || offset=$((size + offset))
        [ "$offset" -ge 0 ] || offset=0
        [ "$offset" -le "$size" ] || offset=$size
        begin log
        [ "$offset" = "$size" ] || tail -c "+$((offset + 1))" "$log" | head -c "$log_cap" >&4
        end log
    else
        offset=0
    fi
    length=-
    if [ -f "runs/$key/$results" ]; then
        length=$(stat -L -c %s "runs/$key/$results") || length=0
        if [ "$results_cap" -lt 0 ]; then # its end, however long it is
            begin results
            tail -c "${results_cap#-}" "runs/$key/$results" | head -c "${results_cap#-}" >&4
            end results
        elif [ "$length" -le "$results_cap" ]; then
            begin results
            head -c "$results_cap" "runs/$key/$results" >&4
            end results
        fi
    elif [ -d "runs/$key/$results" ] && [ "$results_cap" -lt 0 ]; then
        events "runs/$key/$results" "${results_cap#-}"
    fi
    job_of "$key"
    say done known "$offset" "$size" "$length" "${job:--}"
}
find_tag() {
    IFS= read -r tag <&3 || gone
    is_name "$tag" || { fail cluster.bad-request find; return; }
    for file in "tags/$tag"/*; do
        key=${file##*/}
        [ -e "$file" ] || continue
        show record "$key"
    done
    say done
}

# ------------------------------------------------------------------ change

save() {
    IFS= read -r key <&3 && IFS= read -r reported <&3 && IFS= read -r length <&3 && is_hex "$key" && is_number "$length" || gone
    store "tmp/record.$token"
    IFS= read -r go <&3 && [ "$go" = go ] || gone
    [ -d "runs/$key" ] || { rm -f "tmp/record.$token"; fail cluster.run-unknown "$key"; return; }
    if [ -z "$words" ] && [ -e "active/$key" ]; then
        IFS= read -r since <"active/$key"
        words=$({ printf '%s\n%s\n' "$since" "$reported" >"tmp/active.$token"; } 2>&1 && mv "tmp/active.$token" "active/$key" 2>&1)
    fi
    [ -n "$words" ] || words=$(mv "tmp/record.$token" "runs/$key/record.json" 2>&1)
    rm -f "tmp/record.$token" "tmp/active.$token"
    if [ -z "$words" ]; then say done; else failed "$words"; fi
}
retire() {
    IFS= read -r key <&3 || gone
    is_hex "$key" || { fail cluster.bad-request retire; return; }
    [ ! -d "runs/$key" ] || [ -e "runs/$key/listed" ] || true >"runs/$key/listed"
    words=$(rm -f "active/$key" 2>&1)
    if [ -z "$words" ]; then say done; else failed "$words"; fi
}
others_with() { # key -> $others, the active runs that have the job $job too and have not given it up
    others= mine=$job
    for file in active/*; do
        other=${file##*/}
        [ "$other" != "$1" ] && is_hex "$other" && [ ! -e "runs/$other/left" ] || continue
        ! job_of "$other" || [ "$job" != "$mine" ] || others="$others$other "
    done
    job=$mine
}
cancel() { # key words: the run gives its job up, and why; unless another one has it too, the job is ended
    IFS= read -r key <&3 && IFS= read -r why <&3 || gone
    is_hex "$key" || { fail cluster.bad-request cancel; return; }
    job_of "$key" || { fail cluster.run-unknown "$key"; return; }
    # Before anything is ended: whoever sees that end must know who wanted it, whatever becomes of us. The first one counts.
    [ -e "runs/$key/left" ] || words=$({ printf '%s\n' "$why" >"tmp/left.$token" && mv "tmp/left.$token" "runs/$key/left"; } 2>&1) || {
        failed "$words"
        return
    }
    # Again: a chain may have gone on to its next job. If it is just submitting one, `enter_job` sees that the run is given up.
    job_of "$key" || { text others ''; answer_of command true; say done; return; }
    others_with "$key"
    text others "$others"
    if [ -n "$others" ] || [ "$kind" = api ]; then
        answer_of command true
    elif [ "$kind" = slurm ]; then
        answer_of command scancel "$job"
        [ "$status" = 0 ] || rm -f "runs/$key/left"
    elif started "${job%%-*}" && [ "$start" = "${job##*-}" ]; then
        # the job's whole session, or at least the job
        answer_of command sh -c 'kill -TERM "-$1" 2>/dev/null || kill -TERM "$1"' sh "${job%%-*}"
    else
        answer_of command true
    fi
    say done
}
abandon() {
    IFS= read -r key <&3 || gone
    [ "$key" != "$claimed" ] || give_back
    say done
}
estimate() {
    IFS= read -r length <&3 && is_number "$length" || gone
    store "tmp/script.$token"
    IFS= read -r go <&3 && [ "$go" = go ] || gone
    [ -z "$words" ] || { failed "$words"; return; }
    answer_of command sbatch --test-only "tmp/script.$token"
    rm -f "tmp/script.$token"
    say done
}
probe() {
    IFS= read -r account <&3 && IFS= read -r partition <&3 || gone
    case $account$partition in *[!A-Za-z0-9._,@-]* | -*) fail cluster.bad-request probe; return ;; esac
    answer_of job_dir sh -c 'mkdir "$1" && echo x >"$1/x" && rm -rf "$1" && pwd' sh "tmp/probe.$token"
    answer_of space df -Pk .
    if command -v lfs >/dev/null; then answer_of quota lfs quota -q -u "$(id -un)" .; else answer_of quota quota -w; fi
    answer_of system sh -c 'uname -snrm; id -un; tar --version | head -n 1; gzip --version | head -n 1'
    if [ "$kind" = slurm ]; then
        answer_of sbatch sbatch --version
        answer_of squeue squeue --me --noheader -o %i
        answer_of sacct sacct -n -P -X --format=JobIDRaw
        answer_of partition scontrol -o show partition "$partition"
        answer_of partitions sinfo -h -o '%P|%a|%l|%D|%G|%t'
        answer_of account sacctmgr -n -P show assoc "user=$(id -un)" format=Account,Partition,QOS
        answer_of pyxis sh -c 'srun --help | grep -e --container-image'
        answer_of enroot sh -c 'command -v enroot'
    fi
    say done "$(date +%s)"
}

# ------------------------------------------------------------------ the conversation

IFS= read -r mark <&3 && IFS= read -r version <&3 && IFS= read -r kind <&3 && IFS= read -r job_dir <&3 || exit 0
case $kind in slurm | local | api) ;; *) exit 0 ;; esac
if ! IFS= read -r boot </proc/sys/kernel/random/boot_id; then boot=$(uname -n | tr . -); fi
started $$
token=$boot.$$.$start

# A session's own Slurm settings would change what is submitted and what is printed; where the cluster is stays.
for name in $(env | sed -n 's/^\(S[A-Z]*_[A-Z0-9_]*\)=.*/\1/p'); do
    case $name in
    SLURM_CONF | SLURM_CONF_SERVER | SLURM_JWT) ;;
    SLURM_* | SBATCH_* | SQUEUE_* | SACCT_* | SCANCEL_* | SCONTROL_* | SINFO_*) unset "$name" ;;
    esac
done
# Only login shells have Slurm's folder in PATH on some clusters.
if [ "$kind" = slurm ] && ! command -v sbatch >/dev/null; then
    for folder in /opt/slurm/bin /usr/local/slurm/bin /opt/slurm/current/bin /cm/shared/apps/slurm/current/bin; do
        [ ! -x "$folder/sbatch" ] || PATH=$PATH:$folder
    done
    if ! command -v sbatch >/dev/null; then
        found=$(limited 10 "${SHELL:-sh}" -lc 'command -v sbatch' | sed -n '$p')
        case $found in /*/sbatch) PATH=$PATH:${found%/*} ;; esac
    fi
fi
words=$(mkdir -p "$job_dir" 2>&1) && words=$(cd "$job_dir" 2>&1) && cd "$job_dir" &&
    words=$(mkdir -p packages/groups runs active queue tags usage history tmp 2>&1) || {
    failed "$words"
    exit 0
}
say hello 1 "$kind" "$PWD"

while IFS= read -r verb <&3; do
    [ -z "$locked" ] || touch -c "lock/held.$token"
    case $verb in
    claim | submit | abandon | sweep | details | fetch | save | retire | cancel | probe | estimate) "$verb" ;;
    release | drop | lock | unlock | standing | usage | account) "$verb" ;;
    go_on | adopt | history | remember | enter | unlaunched | bring | log_kept) "$verb" ;;
    find) find_tag ;;
    *) gone ;;
    esac
done
gone
