# A list of images -> squash files that Pyxis starts from: each is imported once, whoever needs it.
#
#   sh image.sh LIST job|login [PATIENCE]
#
# It runs where a job starts, or on the login node, at the same time for any number of runs that share the cache. LIST says on its first
# line where images are imported first, then on a line each `URI FILE`: neither has a space. POSIX sh, stat and enroot are all that it uses.
#
#   FILE                              the image, whole or not there
#   FILE.lock/held.BOOT.PID.START     who imports it, and touches this file while it lives; only rename(2) changes who
#   FILE.failed                       who tried last, in vain
#
# A holder that died on this machine is known at once. One elsewhere is dead when its file has not changed for PATIENCE seconds of our own
# clock, because nobody knows how far two clocks are apart. Should it only have been slow: an import is written under a name of its own.

list=$1 where=$2 patience=${3:-180}
say() { printf 'dispatch: %s\n' "$*"; }
started() { # pid -> $start, its start time; 1 when there is no such process (a zombie is none)
    start=
    if IFS= read -r stat <"/proc/$1/stat"; then
        set -- ${stat##*) }
        case $1 in Z | X) return 1 ;; esac
        start=${20}
        return 0
    fi 2>/dev/null
    [ ! -e /proc/self/stat ] && kill -0 "$1" 2>/dev/null && start=0
}
holder() { # -> $owner of $lock; empty when nobody has it
    owner=
    for held in "$lock"/held.*; do
        [ ! -e "$held" ] || owner=${held#"$lock/held."}
    done
}
who() { # BOOT.PID.START -> $words for people
    words="process ${1##"$boot".}"
    case $words in *.*.*) words='a process on another node' ;; *) words="${words%.*} on this node" ;; esac
}
lives() { # whether $owner may still be at it
    other=${owner#"$boot".}
    if [ "$other" != "$owner" ]; then
        started "${other%%.*}" && [ "$start" = "${other##*.}" ]
        return
    fi
    now="$owner $(stat -c %Y "$lock/held.$owner" 2>/dev/null)"
    [ "$now" = "$last" ] || last=$now quiet=0
    [ "$quiet" -lt "$patience" ]
}
take() { # 0: $lock is ours
    if [ ! -e "$lock" ]; then
        words=$({ mkdir "$lock.$me" && true >"$lock.$me/held.$me" && mv "$lock.$me" "$lock"; } 2>&1) || [ -e "$lock" ] ||
            failed "the cache $cache cannot be written to: $words"
        rm -rf "$lock.$me" "$lock/${lock##*/}.$me" # one that came second lies inside the first
    fi
    holder
    case $owner in
    "$me") return 0 ;;
    '')
        rmdir "$lock" 2>/dev/null # whoever had it is just giving it back
        return 1
        ;;
    esac
    ! lives || return 1
    touch -c "$lock/held.$owner" # before it has our name
    mv "$lock/held.$owner" "$lock/held.$me" 2>/dev/null
    [ -e "$lock/held.$me" ] || return 1
    who "$owner"
    say "$words, which imported $uri, is gone; beginning again"
}
give_back() {
    [ -z "$beat" ] || kill "$beat" 2>/dev/null
    [ -z "$child" ] || kill "$child" 2>/dev/null
    [ -z "$part" ] || rm -f "$part"
    beat='' child='' part=''
    [ ! -e "$lock/held.$me" ] || rm -rf "$lock"
}
failed() { # words
    say "the image $uri could not be imported: $*"
    exit 1
}
import() { # with $lock in our hands
    [ ! -e "$file" ] || return 0
    if ! command -v enroot >/dev/null; then
        failed "there is no enroot on $(uname -n). Have it installed there, or import on the other side (\`squash: { on: job }\` or \`login\`)."
    fi
    rm -f "$cache/.${file##*/}".* # what the dead left
    part=$cache/.${file##*/}.$me
    (while sleep 20 && kill -0 $$; do touch -c "$lock/held.$me"; done) >/dev/null 2>&1 &
    beat=$!
    say "importing $uri on $(uname -n) into $file"
    began=$(date +%s)
    enroot import --output "$part" "$uri" </dev/null &
    child=$!
    wait "$child"
    status=$?
    child=
    if [ "$status" != 0 ] || [ ! -s "$part" ] || ! mv "$part" "$file"; then
        printf '%s\n' "$me" >"$file.failed"
        failed "enroot ended with status $status on $(uname -n); its own words are in the log. Is the name right, may this account read it \
(~/.config/enroot/.credentials), is there room in $cache and in ENROOT_TEMP_PATH?"
    fi
    rm -f "$file.failed"
    say "imported $uri in $(($(date +%s) - began)) s"
}
bring() { # $uri -> $file, by whoever
    awaited='' waited=0 quiet=0 last=''
    until [ -e "$file" ]; do
        if take; then ours=yes; else ours=; fi
        # Whoever waited for an import that failed has failed with it: a hundred tasks need not all hear the same from a registry.
        by=-
        [ ! -e "$file.failed" ] || IFS= read -r by <"$file.failed" || by=-
        case $awaited in
        *" $by "*)
            who "$by"
            failed "$words tried, and this one waited for it. A login node's words are in logs/image.log of its run."
            ;;
        esac
        if [ -n "$ours" ]; then
            import
            give_back
            continue
        fi
        if [ -n "$owner" ]; then
            who "$owner"
            [ $((waited % 300)) != 0 ] || say "waiting for $uri, which $words imports"
            case $awaited in *" $owner "*) ;; *) awaited="$awaited $owner " ;; esac
        fi
        if [ "$waited" -lt 10 ]; then pause=1; else pause=5; fi
        sleep "$pause"
        waited=$((waited + pause)) quiet=$((quiet + pause))
    done
    touch -c "$file" 2>/dev/null || : # where old files are purged, this one is in use
}

if ! IFS= read -r boot </proc/sys/kernel/random/boot_id; then boot=$(uname -n | tr . -); fi
started $$
me=$boot.$$.$start beat='' child='' part='' lock=''
trap 'give_back' EXIT
trap 'exit 143' TERM INT HUP
{
    IFS= read -r first
    while IFS=' ' read -r uri file; do
        cache=${file%/*} lock=$file.lock
        words=$(mkdir -p "$cache" 2>&1) || failed "the cache $cache cannot be made: $words"
        bring
        # The login node waits for a word of it before it submits: by then the lock is taken, or needed no more.
        [ "$where" != login ] || say "$uri is there"
    done
} <"$list"
