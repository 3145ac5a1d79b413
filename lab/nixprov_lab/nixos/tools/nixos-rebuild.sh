#!@shell@
# Builds the machine's configuration and makes it the running system, the boot default, or both.
# Imitates nixos-rebuild-ng: the exit code is that of the failed program, and standard output has only the result.
set -euo pipefail
export PATH=@nix@/bin:@path@:$PATH

say() { echo "$*" >&2; }
usage="usage: nixos-rebuild [-h] {switch,boot,test,build,dry-build,dry-activate,list-generations} [--rollback] [-I PATH] [--flake FLAKE_URI]
                     [--no-flake] [--file FILE] [--attr ATTR] [--profile-name NAME] [--json] [Nix's own options]"
refuse() { say "$usage"; say "nixos-rebuild: error: $*"; exit 2; }
unsupported() { say "error: nixos-rebuild: $1: not supported by the stand-in NixOS"; exit 1; }

action='' flake='' no_flake='' file='' attribute='' rollback='' json='' profile=/nix/var/nix/profiles/system
build_options=() flake_options=() eval_options=()
value() { [ $# -ge 2 ] || refuse "argument $1: expected one argument"; }
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) echo "$usage"; exit 0 ;;
    switch | boot | test | build | dry-build | dry-activate | list-generations) [ -z "$action" ] || refuse "unrecognized arguments: $1"; action=$1 ;;
    dry-run) action=dry-build ;;
    edit | repl | build-vm | build-vm-with-bootloader | build-image) unsupported "$1" ;;
    --rollback) rollback=1 ;;
    --flake=*) flake=${1#*=} ;;
    --flake | -F)
        if [ $# -ge 2 ] && [[ $2 != -* ]]; then flake=$2; shift; else flake=/etc/nixos; fi
        ;;
    --no-flake) no_flake=1 ;;
    --file | -f) value "$@"; file=$2; shift ;;
    --attr | -A) value "$@"; attribute=$2; shift ;;
    --profile-name | -p)
        value "$@"
        [ "$2" = system ] || profile=/nix/var/nix/profiles/system-profiles/$2
        mkdir -p /nix/var/nix/profiles/system-profiles
        shift
        ;;
    --json) json=1 ;;
    --fast | --no-reexec | --no-build-nix | --no-ssh-tty | --install-bootloader | --debug) ;;
    -I) value "$@"; eval_options+=(-I "$2"); shift ;;
    -I*) eval_options+=("$1") ;;
    --option) [ $# -ge 3 ] || refuse "argument --option: expected 2 arguments"; build_options+=("$1" "$2" "$3"); shift 2 ;;
    --max-jobs | -j | --cores | --log-format) value "$@"; build_options+=("$1" "$2"); shift ;;
    --keep-going | -k | --keep-failed | -K | --fallback | --repair | --quiet | --verbose | -v | -vv | -vvv) build_options+=("$1") ;;
    --show-trace) eval_options+=("$1") ;;
    --print-build-logs | -L | --impure | --refresh | --offline | --no-write-lock-file | --no-update-lock-file | --recreate-lock-file | --commit-lock-file | --accept-flake-config) flake_options+=("$1") ;;
    --override-input) [ $# -ge 3 ] || refuse "argument --override-input: expected 2 arguments"; flake_options+=("$1" "$2" "$3"); shift 2 ;;
    --no-build-output | -Q) build_options+=(--no-build-output) ;;
    --upgrade | --upgrade-all | --specialisation | -c | --target-host | --build-host | --store-path | --sudo | --use-remote-sudo | --elevate* | --diff | --image-variant) unsupported "$1" ;;
    *) refuse "unrecognized arguments: $1" ;;
    esac
    shift
done
[ -n "$action" ] || refuse "the following arguments are required: action"

list_generations() {
    local link number when version current rows=()
    for link in "$profile"-*-link; do
        number=${link%-link}
        number=${number##*-}
        when=$(date -d "@$(stat -c %Y "$link")" '+%Y-%m-%d %H:%M:%S')
        version=$(cat "$link/nixos-version" 2> /dev/null || echo Unknown)
        current=false
        [ "$(readlink "$profile")" != "$(basename "$link")" ] || current=true
        rows+=("$number	$when	$version	$(cat "$link/configuration-revision" 2> /dev/null || true)	$current")
    done
    if [ -n "$json" ]; then
        printf '%s\n' "${rows[@]}" | sort -rn | awk -F'\t' '
            BEGIN { printf "[" }
            { printf "%s\n  {\n    \"generation\": %s,\n    \"date\": \"%s\",\n    \"nixosVersion\": \"%s\",\n    \"kernelVersion\": \"Unknown\",\n    \"configurationRevision\": \"%s\",\n    \"specialisations\": [],\n    \"current\": %s\n  }", (NR > 1 ? "," : ""), $1, $2, $3, $4, $5 }
            END { print "\n]" }'
    else
        printf '%s\n' "${rows[@]}" | sort -rn | awk -F'\t' '
            BEGIN { printf "%-12s%-21s%-28s%-9s%-24s%-16s%s\n", "Generation", "Build-date", "NixOS version", "Kernel", "Configuration Revision", "Specialisation", "Current" }
            { printf "%-12s%-21s%-28s%-9s%-24s%-16s%s\n", $1, $2, $3, "Unknown", $4, "", ($5 == "true" ? "True" : "False") }'
    fi
}
if [ "$action" = list-generations ]; then list_generations; exit 0; fi

# /etc/nixos/flake.nix is preferred to any configuration.nix, even as a link to elsewhere.
if [ -z "$flake$no_flake$file$attribute" ] && [ -e /etc/nixos/flake.nix ]; then flake=$(dirname "$(readlink -f /etc/nixos/flake.nix)"); fi
[ -z "$no_flake" ] || flake=

build() { # LINK (none: ''): prints the path
    local links=(--no-out-link)
    if [ -n "$flake" ]; then
        local name=
        [[ $flake != *'#'* ]] || name=${flake#*#}
        links=(--no-link)
        [ -z "$1" ] || links=(--out-link "$1")
        nix --extra-experimental-features 'nix-command flakes' build --print-out-paths "${links[@]}" \
            "${flake%%#*}#nixosConfigurations.\"${name:-$(hostname)}\".config.system.build.toplevel" \
            "${build_options[@]}" "${flake_options[@]}" "${eval_options[@]}"
        return
    fi
    [ -z "$1" ] || links=(--out-link "$1")
    nix-build "${file:-<nixpkgs/nixos>}" --attr "${attribute:+$attribute.}config.system.build.toplevel" "${links[@]}" "${build_options[@]}" "${eval_options[@]}"
}
previous() { # the path of the generation before this one
    local now link number best=
    now=$(readlink "$profile")
    now=${now%-link}
    now=${now##*-}
    for link in "$profile"-*-link; do
        number=${link%-link}
        number=${number##*-}
        if [ "$number" -lt "$now" ] && [ "$number" -gt "${best:-0}" ]; then best=$number; fi
    done
    [ -n "$best" ] || { say "error: no previous generation to roll back to"; exit 1; }
    echo "$profile-$best-link"
}
activate() { # SYSTEM ACTION: in a unit of a fixed name, so that only one runs at a time
    local code=0 wrapper=(
        systemd-run -E LOCALE_ARCHIVE -E NIXOS_INSTALL_BOOTLOADER -E NIXOS_NO_CHECK
        --collect --no-ask-password --pipe --quiet --service-type=exec --unit=nixos-rebuild-switch-to-configuration
    )
    if [ ! -d /run/systemd/system ]; then
        say "warning: skipping systemd-run: the system was not started by systemd"
        wrapper=(env)
    fi
    "${wrapper[@]}" "$1/bin/switch-to-configuration" "$2" >&2 || code=$?
    [ $code = 0 ] || say "Command '${wrapper[*]} $1/bin/switch-to-configuration $2' returned non-zero exit status $code."
    return $code
}

if [ "$action" = dry-build ]; then
    [ -z "$rollback" ] || refuse "--rollback cannot be used with dry-build"
    say "building the system configuration..."
    build_options+=(--dry-run)
    build '' > /dev/null
    exit 0
fi
if [ -n "$rollback" ]; then
    case $action in
    switch | boot) nix-env --profile "$profile" --rollback; system=$profile ;;
    *) system=$(previous) ;;
    esac
    [ "$action" != build ] || ln -sfn "$(readlink -f "$system")" result
else
    say "building the system configuration..."
    link=
    [ "$action" != build ] || link=result
    system=$(build "$link")
    [ "$action" != build ] || system=$(readlink -f "$system")
    if [ ! -e "$system/nixos-version" ]; then
        say "error: your NixOS configuration path seems to be missing essential files."
        say "To avoid corrupting your current NixOS installation, the activation will abort."
        exit 1
    fi
    case $action in switch | boot) nix-env --profile "$profile" --set "$system" ;; esac
fi
case $action in switch | boot | test | dry-activate) activate "$system" "$action" || exit $? ;; esac
if [ "$action" != dry-activate ]; then
    printf 'Done. The new configuration is ' >&2
    readlink -f "$system"
fi
