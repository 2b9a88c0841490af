#!/usr/bin/env bash
# Set up netstack and run it. Every command does only what is still missing, so the second call
# starts at once. Needs Debian 12 or newer, or Ubuntu 24.04; elsewhere it says what to install.

set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./dev.sh COMMAND [arguments]

  up [arguments]      bring a host up: ./dev.sh up tap0 --addr 10.0.0.2/24 --peer 10.0.0.1
  test [arguments]    the whole test suite: ./dev.sh test -k arp
  fast [arguments]    only what needs no root and no TAP, under a minute
  check               only the static checks: ruff, mypy, stubtest, cython-lint, layout
  build               only the set-up, and what has to be rebuilt
  sanitize [arguments]  the suite on a build with AddressSanitizer and UBSan
  sanitize thread [arguments]  the tests in which threads meet, with ThreadSanitizer
  fuzz [FRAMES]       feed a host a million (or FRAMES) faulty frames that were never tried before

environment:

  PYTHON=/path/to/python3   the interpreter (3.11 or newer)
  NETSTACK_DEBUG=1          a build with bounds checks and invariants
  NETSTACK_JOBS=1           compile one module at a time
TEXT
}

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
root=$PWD
venv=$root/.venv
python=$venv/bin/python
log=$root/build/setup.log
# An ordinary user's PATH on Debian lacks the directories of ip, tcpdump and ethtool.
PATH=$PATH:/usr/sbin:/sbin
# Build and run as in a plain shell, whatever virtual environment the caller is in.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'dev.sh: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '        %s\n' "${@:2}" >&2
    exit 1
}

# Run a long command with its output in the log; show the end of the log when it fails.
quietly() {
    local started=$SECONDS what=$1
    shift
    say "$what"
    "$@" >>"$log" 2>&1 </dev/null || {
        tail -n 30 "$log" >&2
        die "this failed: $*" "The whole output: $log" "Mend it and call ./dev.sh again; it goes on from here."
    }
    [ $((SECONDS - started)) -lt 3 ] || say "  done in $((SECONDS - started)) s"
}

# --- rights ---------------------------------------------------------------------------------

is_root() { [ "$(id -u)" = 0 ]; }

can_sudo() {
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null && return
    [ -t 0 ] && id -nG | grep -qwE 'sudo|admin|wheel'
}

as_root() { if is_root; then "$@"; else sudo "$@"; fi; }

# --- what the distribution has to provide ---------------------------------------------------

have() { command -v "$1" >/dev/null; }

# The library that compiles capture filters; any directory the loader may know.
have_libpcap() {
    compgen -G '/usr/lib*/libpcap.so.[01]*' >/dev/null || compgen -G '/usr/lib/*/libpcap.so.[01]*' >/dev/null
}

libpcap_package() {
    local name
    for name in libpcap0.8t64 libpcap0.8; do
        [ -z "$(apt-cache show "$name" 2>/dev/null)" ] || { echo "$name"; return; }
    done
    echo libpcap0.8
}

# Set `missing` to the packages that the given purpose (up or test) still needs.
find_missing() {
    missing=()
    have cc || missing+=(gcc libc6-dev)
    [ -x "$python" ] || find_python || missing+=(python3-dev python3-venv)
    have ip || missing+=(iproute2)
    have_libpcap || missing+=(libpcap)
    [ "$1" = test ] || return 0
    have ping || missing+=(iputils-ping)
    [[ $(nc -h 2>&1) == *OpenBSD* ]] || missing+=(netcat-openbsd)
    have iperf || missing+=(iperf)
    have traceroute || missing+=(traceroute)
    have mtr || missing+=(mtr-tiny)
    have fping || missing+=(fping)
    have hping3 || missing+=(hping3)
    have arping || missing+=(arping) # that of iputils does as well
    have socat || missing+=(socat)
    have tftp || missing+=(tftp-hpa)
    have dig || missing+=(bind9-dnsutils)
    have dnsperf || missing+=(dnsperf)
    have tcpdump || missing+=(tcpdump)
    have tshark || missing+=(tshark)
    have ethtool || missing+=(ethtool)
    have nmap || missing+=(nmap)
    have snmpget || missing+=(snmp)
    have ntpdig || missing+=(ntpsec-ntpdig)
    have valgrind || missing+=(valgrind)
    have nft || missing+=(nftables)
    [ -e /etc/services ] || missing+=(netbase)
}

install_missing() {
    find_missing "$1"
    [ ${#missing[@]} -gt 0 ] || return 0
    local line="apt-get install -y ${missing[*]}"
    have apt-get || die "missing: ${missing[*]} (Debian's names)" "Install them with this system's package manager, then call ./dev.sh again."
    is_root || can_sudo || die "missing: ${missing[*]}" "As root, type: ${line/ libpcap/ libpcap0.8}" "then call ./dev.sh again."
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 -q -y)
    quietly "apt-get update" as_root "${apt[@]}" update
    line=" ${missing[*]} "
    read -ra missing <<<"${line/ libpcap / $(libpcap_package) }"
    quietly "apt-get install ${missing[*]}" as_root "${apt[@]}" install --no-install-recommends "${missing[@]}"
}

# Tests ask both programs that are called arping, and their packages exclude each other: that of
# iputils is unpacked where tests/e2e/test_ping_clients.py looks for it, and installed nowhere.
unpack_arping() {
    [[ $(arping --help 2>&1) == *Habets* ]] && [ ! -e build/iputils-arping ] && have apt-get || return 0
    say "unpacking iputils-arping in build"
    unpack iputils-arping >>"$log" 2>&1 || say "  that failed; the tests that ask it are skipped"
}

unpack() { (cd build && apt-get -q download "$1" && dpkg -x "$1"_*.deb "$1" && rm "$1"_*.deb); }

# --- the virtual environment ----------------------------------------------------------------

# Set `base` to a Python that is new enough and can make environments and build extensions.
find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" - 2>/dev/null <<'PYTHON'; then base=$name; return; fi
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info < (3, 11) or not os.path.exists(header))
PYTHON
        [ "$name" != "${PYTHON:-}" ] || die "PYTHON=$PYTHON is no Python 3.11 or newer with venv and Python.h" "Type: PYTHON= ./dev.sh ...   and it looks for one itself."
    done
    return 1
}

make_venv() {
    # The base interpreter may have been removed, and a clone that was moved has wrong paths inside.
    if [ -x "$python" ] && [ "$(cat "$venv/.root" 2>/dev/null)" = "$root" ] && "$python" -c ''; then return; fi
    find_python || die "no Python 3.11 or newer with venv and Python.h" "Install one, then type: PYTHON=/path/to/python3 ./dev.sh ..."
    quietly "virtual environment .venv ($("$base" --version))" "$base" -m venv --clear "$venv"
    "$python" -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))' >"$venv/.soabi"
    echo "$root" >"$venv/.root"
}

# install_packages up|test: what is needed to build; what is needed to run is installed by pip -e.
install_packages() {
    wanted=$(cksum <pyproject.toml)
    [ "$(cat "$venv/.test" 2>/dev/null)" != "$wanted" ] || return 0
    [ "$1" = test ] || [ "$(cat "$venv/.up" 2>/dev/null)" != "$wanted" ] || return 0
    local extra=
    [ "$1" != test ] || extra='[test]'
    "$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' >"$venv/.requires"
    quietly "pip install (build requirements)" "$venv/bin/pip" install --disable-pip-version-check -r "$venv/.requires"
    build
    quietly "pip install -e .$extra" "$venv/bin/pip" install --disable-pip-version-check --no-build-isolation -e ".$extra"
    echo "$wanted" >"$venv/.$1"
}

# --- compiled modules -----------------------------------------------------------------------

# Say whether a source changed, a module is missing or a module has lost its source.
stale() {
    local soabi stamp changed source module
    soabi=$(cat "$venv/.soabi")
    stamp=build/inplace.$soabi
    [ -e "$stamp" ] || return 0
    [ "$(cat "$venv/.debug" 2>/dev/null)" = "${NETSTACK_DEBUG:-}" ] || return 0
    changed=$(find netstack setup.py \( -name '*.pyx' -o -name '*.pxd' -o -name setup.py \) -newer "$stamp" -print -quit)
    [ -z "$changed" ] || return 0
    while read -r source; do
        [ -e "${source%.pyx}.$soabi.so" ] || return 0
    done < <(find netstack -name '*.pyx')
    while read -r module; do
        [ -e "${module%".$soabi.so"}.pyx" ] || return 0
    done < <(find netstack -name "*.$soabi.so")
    return 1
}

build() {
    stale || return 0
    local started=$SECONDS
    say "compiling what changed (the first time: everything)"
    PYTHONUNBUFFERED=1 "$python" setup.py build_ext --inplace </dev/null 2>&1 | tee -a "$log" \
        | sed -nu -e 's/^\(\[[0-9/ ]*\] Cythonizing .*\)/    \1/p' -e "s/^building '\(.*\)' extension/    compiling \1/p" -e '/performance hint/p' >&2 || {
        tail -n 30 "$log" >&2
        die "the extensions do not build" "The whole output: $log" "Mend the source, then type: ./dev.sh build"
    }
    echo "${NETSTACK_DEBUG:-}" >"$venv/.debug"
    say "  done in $((SECONDS - started)) s"
}

# --- what netstack finds on the machine -----------------------------------------------------

# sudo drops the environment's path, so that `sudo netstack` needs a name in one of its own places.
link_command() {
    local link=/usr/local/bin/netstack target=$venv/bin/netstack old
    [ "$(readlink "$link" || true)" != "$target" ] || return 0
    if [ -L "$link" ] || [ -e "$link" ]; then
        old=$(readlink "$link" || true)
        case $old in
        */.venv/bin/netstack) [ ! -e "$old" ] || { say "$link is another clone's ($old); to change it: sudo ln -sfn $target $link"; return 0; } ;;
        *) say "$link exists and is not ours; left as it is. This one is $target"; return 0 ;;
        esac
    fi
    if is_root || can_sudo; then
        as_root mkdir -p "${link%/*}"
        as_root ln -sfn "$target" "$link"
        say "$link -> $target"
    fi
}

# A container or chroot often lacks the device even where the kernel has TAP.
make_tun() {
    [ ! -e /dev/net/tun ] || return 0
    say "/dev/net/tun is missing; making it"
    as_root modprobe -q tun 2>/dev/null || true
    [ -e /dev/net/tun ] || as_root sh -c 'mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c 10 200' || say "  that failed; TAPs will not work. Type: netstack doctor"
}

# setup up|test [elsewhere]: the latter leaves the modules beside their sources as they are.
setup() {
    mkdir -p build
    (
        flock 9 # one set-up at a time: `up` and `test` may be called in two terminals
        [ -s "$venv/.root" ] || : >"$log"
        install_missing "$1"
        [ "$1" != test ] || unpack_arping
        make_venv
        install_packages "$1"
        [ $# -gt 1 ] || build
        link_command
    ) 9>build/lock
}

# --- commands -------------------------------------------------------------------------------

run_up() {
    setup up
    if is_root || can_sudo; then
        make_tun
        if is_root; then exec "$venv/bin/netstack" up "$@"; else exec sudo "$venv/bin/netstack" up "$@"; fi
    fi
    say "no root and no sudo: the host comes up in a network namespace of its own"
    exec "$venv/bin/netstack" up "$@"
}

launcher=()
run_pytest() { "${launcher[@]}" "$python" -m pytest "$@"; }

# What needs no TAP is of one process each, so all processors share it. --pdb and the like turn that off.
shared=(-n auto --maxprocesses=8 --dist worksteal)

# The whole suite, or what the arguments name. The tests with a TAP are the second part and have the
# machine for themselves: some measure, and what they measure has threads of its own.
whole_suite() { # whole_suite LAUNCHER... -- PYTEST-ARGUMENT...
    local status=0 run=()
    while [ "$1" != -- ]; do run+=("$1"); shift; done
    shift
    run+=("$python" -m pytest)
    if [ $# -gt 0 ]; then
        "${run[@]}" "$@"
        return
    fi
    say "first part: what needs no TAP"
    "${run[@]}" "${shared[@]}" -m 'not tap' || status=$?
    say "second part: the tests with a TAP"
    "${run[@]}" -m tap || status=$?
    [ "$status" = 0 ] || say "not everything passed: see the summary of each part"
    return "$status"
}

run_test() {
    setup test
    if is_root; then
        make_tun
        whole_suite -- "$@"
    elif can_sudo; then
        make_tun
        say "the tests that need a TAP need root: running the suite with sudo"
        local status=0
        whole_suite sudo env "PATH=$PATH" "CI=${CI:-}" -- "$@" || status=$?
        sudo find "$root" -xdev -uid 0 -exec chown -h "$(id -u):$(id -g)" {} + # root's caches are ours again
        return "$status"
    else
        say "no root and no sudo: leaving out the tests that need a TAP"
        run_pytest "${shared[@]}" -m 'not tap' "$@"
    fi
}

# Neither needs root nor a TAP, and compiles nothing; threads meet for a shorter time (tests/test_threads.py).
run_fast() {
    setup test
    export NETSTACK_TEST_LOAD=${NETSTACK_TEST_LOAD:-0.3}
    run_pytest "${shared[@]}" -m 'not tap and not bench' \
        --ignore=tests/test_static.py --ignore=tests/test_packaging.py "$@"
}

run_check() {
    setup test
    run_pytest tests/test_static.py tests/test_layout.py "$@"
}

# A second build beside the first. The interpreter is not sanitized, so the runtime has to be there
# before it (tools/sanitize says how).
sanitized() { # sanitized KINDS DIRECTORY RUNTIME PYTEST-ARGUMENT...
    local runtime
    runtime=$(cc -print-file-name="$3")
    [ -e "$runtime" ] || die "the compiler has no $3" "As root, type: apt-get install libasan8 libtsan2"
    quietly "building with -fsanitize=$1 in $2" \
        env NETSTACK_SANITIZE="$1" "$python" setup.py build --build-base "$2" --build-lib "$2/lib"
    export NETSTACK_SANITIZER_RUNTIME=$runtime PYTHONSAFEPATH=1
    export PYTHONPATH=$root/tools/sanitize:$root/$2/lib:$root:$root/tools
    shift 3
    local status=0 reports=$root/build/sanitizer-report
    rm -f "$reports".*
    # A report ends the process, and pytest has the terminal then: so it goes to a file.
    ASAN_OPTIONS=${ASAN_OPTIONS:-}:log_path=$reports UBSAN_OPTIONS=${UBSAN_OPTIONS:-}:log_path=$reports \
        run_pytest -o pythonpath= "$@" || status=$?
    [ "$status" = 0 ] || cat "$reports".* 2>/dev/null || true
    return "$status"
}

run_sanitize() {
    setup test elsewhere
    if [ "${1:-}" = thread ]; then
        shift
        run_sanitize_thread "$@"
        return
    fi
    ! is_root || make_tun
    local only='not bench'
    is_root || only='not bench and not tap'
    # The interpreter frees nothing at exit, so leaks are not looked for.
    export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    export PYTHONMALLOC=malloc
    sanitized address,undefined build/sanitize libasan.so -m "$only" \
        --ignore=tests/test_static.py --ignore=tests/test_packaging.py "$@"
}

# ThreadSanitizer, for the tests in which threads meet. Its reports go to the terminal, and any of
# them makes the exit status 66. It has no place for an address space laid out too much at random.
run_sanitize_thread() {
    [ $# -gt 0 ] || set -- -m 'not tap and not bench' tests/test_{threads,cpus,queues,host,socket,control,apps}.py \
        tests/{device,driver,irq,napi,netif,nf,proto,sock}
    export TSAN_OPTIONS="suppressions=$root/tools/sanitize/tsan.supp:history_size=4"
    ! setarch -R true 2>/dev/null || launcher=(setarch -R)
    sanitized thread build/tsan libtsan.so -s --timeout=300 "$@"
}

run_fuzz() {
    setup test
    export NETSTACK_FUZZ_FRAMES=${NETSTACK_FUZZ_FRAMES:-${1:-1000000}}
    export NETSTACK_FUZZ_SEED=${NETSTACK_FUZZ_SEED:-$(date +%s)}
    say "$NETSTACK_FUZZ_FRAMES frames from number $NETSTACK_FUZZ_SEED on, each way"
    run_pytest --hypothesis-profile=fuzz tests/fuzz "${@:2}"
}

main() {
    local command=${1:-}
    [ $# -eq 0 ] || shift
    case $command in
    up) run_up "$@" ;;
    test) run_test "$@" ;;
    fast) run_fast "$@" ;;
    check) run_check "$@" ;;
    build) setup test ;;
    sanitize) run_sanitize "$@" ;;
    fuzz) run_fuzz "$@" ;;
    -h | --help | help) usage ;;
    '') usage >&2; exit 2 ;;
    *) printf "dev.sh: unknown command '%s'\n\n" "$command" >&2; usage >&2; exit 2 ;;
    esac
}

# In one line: bash reads a script as it goes, and this file may change while a command runs.
main "$@"; exit
