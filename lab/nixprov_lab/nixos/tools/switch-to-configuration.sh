#!@shell@
# Makes this system the running one: stops units, activates, then reloads, restarts and starts units.
# Imitates NixOS' switch-to-configuration in its order, its messages, and its exit codes: 0 done, 1 refused,
# 2 the activation failed, 3 systemd could not reload, 4 a unit failed, 11 another switch is running, 100 only a reboot helps,
# 101 its output broke (Rust's eprintln! panics, NixOS/nixpkgs#462179).
# With NIXPROV_LAB_OLD_SWITCH=1 it behaves as up to NixOS 24.11. It waits for the lock, and a failure before the activation
# ends with a leftover errno. Here that is 2 (ENOENT), which looks like a failed activation.
set -u
trap '' PIPE
export PATH=@path@:/usr/sbin:/usr/bin
out=@out@
action=${1-}
system=/etc/systemd/system
lists=/run/nixos
status=0
shopt -s nullglob

say() { echo "$*" >&2 || exit 101; }
old() { [ "${NIXPROV_LAB_OLD_SWITCH-}" = 1 ]; }
die() { if old; then exit 2; else exit 1; fi; }

case $action in
check | switch | boot | test | dry-activate) ;;
*)
    say "Usage: ${0##*/} [check|switch|boot|test|dry-activate]

check:        run pre-switch checks and exit
switch:       make the configuration the boot default and activate now
boot:         make the configuration the boot default
test:         activate the configuration, but don't make it the boot default
dry-activate: show what would be done if this configuration were activated"
    exit 1
    ;;
esac
if [ ! -e /etc/NIXOS ] && ! grep -qs '^ID="\?nixos' /etc/os-release; then
    say "This is not a NixOS installation!"
    exit 1
fi
export NIXOS_ACTION=$action LOCALE_ARCHIVE=${LOCALE_ARCHIVE-}
mkdir -p $lists
exec 9>> $lists/switch-to-configuration.lock
if old; then flock 9; else flock --nonblock 9; fi || { say "Could not acquire lock"; exit 11; } # EAGAIN
if [ "${NIXOS_NO_CHECK-}" != 1 ] && ! "$out/pre-switch-checks" "$out" "$action"; then
    say "Pre-switch checks failed"
    die
fi
[ "$action" != check ] || exit 0
# A machine of the lab starts its profile; only boot.loader.external has something to do.
if [ "$action" = switch ] || [ "$action" = boot ]; then
    @installBootLoader@ "$out" || { say "Failed to install bootloader"; die; }
    sync -f /nix/store
fi
[ "$action" != boot ] || exit 0
if [ "$(cat /run/current-system/init-interface-version 2> /dev/null)" != "$(cat "$out/init-interface-version")" ]; then
    say "Warning: the new NixOS configuration has an ‘init’ that is
incompatible with the current configuration.  The new configuration
won't take effect until you reboot the system."
    exit 100
fi
# The terminal of the caller may go away during the switch.
trap '' HUP

declare -A to_stop=() to_skip=() to_start=() to_restart=() to_reload=() hidden=() active=()
read_list() { # FILE ARRAY
    local -n set=$2
    [ -e "$1" ] || return 0
    while IFS= read -r unit; do [ -z "$unit" ] || set[$unit]=1; done < "$1"
}
read_list $lists/start-list to_start
read_list $lists/restart-list to_restart
read_list $lists/reload-list to_reload
record() { [ "$action" = dry-activate ] || echo "$2" >> $lists/"$1"-list; }
unrecord() {
    [ "$action" != dry-activate ] && [ -e $lists/"$1"-list ] || return 0
    grep -vxF -- "$2" $lists/"$1"-list > $lists/"$1"-list.new
    mv $lists/"$1"-list.new $lists/"$1"-list
}
sorted() { printf '%s\n' "$@" | sort; }
listed() { sorted "$@" | paste -sd, - | sed 's/,/, /g'; }

active_units() { systemctl list-units --plain --full --no-legend --no-pager | awk '$3 != "inactive" {print $1, $3, $4}'; }
# The settings of a directory's units for their own handling: "UNIT SECTION.KEY" -> value, drop-ins last.
declare -A old_says=() new_says=()
read_says() { # DIRECTORY ARRAY
    local -n says=$2
    local unit key value files=("$1"/*.{service,socket,target,timer,path,slice,mount} "$1"/*.d/*.conf)
    [ ${#files[@]} -gt 0 ] || return 0
    while IFS=$'\t' read -r unit key value; do says[$unit $key]=$value; done < <(
        awk '
            FNR == 1 { section = ""; unit = FILENAME; sub(/\.d\/[^\/]*$/, "", unit); sub(/.*\//, "", unit) }
            /^\[/ { section = substr($0, 2, length($0) - 2) }
            /^(X-[A-Za-z]+|RefuseManualStart|RefuseManualStop|Sockets)=/ {
                at = index($0, "=")
                print unit "\t" section "." substr($0, 1, at - 1) "\t" substr($0, at + 1)
            }
        ' "${files[@]}"
    )
}
truth() { case $1 in 1 | yes | true | on) ;; *) return 1 ;; esac }
is() { truth "${new_says[$1 $2]-no}"; }
is_not() { ! truth "${new_says[$1 $2]-yes}"; }

# The difference of two unit files: same, reload (only X-Reload-Triggers) or restart. [Install] does not count, and some
# keys of [Unit] do not matter to a running unit.
compare() {
    awk '
        BEGIN {
            count = split("Description Documentation OnFailure OnSuccess OnFailureJobMode IgnoreOnIsolate StopWhenUnneeded " \
                "RefuseManualStart RefuseManualStop AllowIsolate CollectMode SourcePath", words, " ")
            for (i = 1; i <= count; i++) ignored["[Unit]" words[i]] = 1
        }
        FNR == 1 && FILENAME != file { file = FILENAME; side = (file == first || index(file, first ".d/") == 1) ? "old" : "new"; section = "" }
        { if (held != "") { $0 = held $0; held = "" } }
        /\\$/ { held = substr($0, 1, length($0) - 1) " "; next }
        /^[#;]/ || /^[ \t]*$/ { next }
        /^\[/ { section = $0; next }
        section == "[Install]" { next }
        {
            at = index($0, "="); key = section substr($0, 1, at - 1); value = substr($0, at + 1)
            keys[key] = 1
            if (value == "") delete values[side, key]; else values[side, key] = values[side, key] "\n" value
        }
        END {
            answer = "same"
            for (key in keys) {
                if (values["old", key] == values["new", key] || key in ignored) continue
                if (key == "[Unit]X-Reload-Triggers") { if (answer == "same") answer = "reload" } else answer = "restart"
            }
            print answer
        }
    ' first="$1" "$1" "$1".d/*.conf "$2" "$2".d/*.conf
}

forget_reload() {
    [ -n "${to_reload[$1]-}" ] || return 0
    unset "to_reload[$1]"
    unrecord reload "$1"
}
stop_and_start() { # UNIT BASE: with its sockets, which then start it
    local socket activated= sockets=${new_says[$2 Service.Sockets]-${2%.*}.socket}
    for socket in $sockets; do
        [ -n "${active[$socket]-}" ] && ! is "$2" Service.X-NotSocketActivated || continue
        to_stop[$socket]=1
        if [ -e "$out/etc/systemd/system/$socket" ]; then
            to_start[$socket]=1 activated=1
            record start "$socket"
        fi
    done
    if [ -z "$activated" ]; then
        to_start[$1]=1
        record start "$1"
    fi
    to_stop[$1]=1
    forget_reload "$1"
}
modified() { # UNIT BASE
    case $1 in
    sysinit.target | basic.target | multi-user.target | graphical.target | *.path | *.slice | *.socket) ;;
    *.mount) to_reload[$1]=1; record reload "$1" ;;
    *)
        if is "$2" Service.X-ReloadIfChanged && [ -z "${to_restart[$1]-}${to_stop[$1]-}" ]; then
            to_reload[$1]=1
            record reload "$1"
        elif is_not "$2" Service.X-RestartIfChanged || is "$2" Unit.RefuseManualStop || is "$2" Unit.X-OnlyManualStart; then
            to_skip[$1]=1
        elif is_not "$2" Service.X-StopIfChanged || [[ $1 != *.service ]]; then
            to_restart[$1]=1
            record restart "$1"
            forget_reload "$1"
        else
            stop_and_start "$@"
        fi
        ;;
    esac
}
may_be_started() { ! is "$1" Unit.RefuseManualStart && ! is "$1" Unit.X-OnlyManualStart; }
target() { # an active target is started again, which starts its new wants
    case $1 in suspend.target | hibernate.target | hybrid-sleep.target) ;; *)
        if may_be_started "$1"; then
            to_start[$1]=1 hidden[$1]=1
            record start "$1"
        fi
        ;;
    esac
    if is "$1" Unit.X-StopOnReconfiguration; then to_stop[$1]=1; fi
}

read_says "$system" old_says
read_says "$out/etc/systemd/system" new_says
while read -r unit state _; do active[$unit]=$state; done < <(active_units)
for unit in "${!active[@]}"; do
    base=$unit
    if [ ! -e "$system/$unit" ] && [ ! -e "$out/etc/systemd/system/$unit" ] && [[ $unit =~ ^(.*)@[^.]*\.(.*)$ ]]; then
        base=${BASH_REMATCH[1]}@.${BASH_REMATCH[2]}
    fi
    old=$system/$base new=$out/etc/systemd/system/$base
    [ -e "$old" ] || continue
    [ "${active[$unit]}" = active ] || [ "${active[$unit]}" = activating ] || continue
    if [ ! -e "$new" ] || [ -c "$new" ]; then
        if truth "${old_says[$base Unit.X-StopOnRemoval]-yes}"; then to_stop[$unit]=1; fi
    elif [[ $unit == *.target ]]; then
        target "$unit"
    else
        if [ ! -d "$old.d" ] && [ ! -d "$new.d" ] && cmp -s "$old" "$new"; then continue; fi
        case $(compare "$old" "$new") in
        restart) modified "$unit" "$base" ;;
        reload) [ -n "${to_restart[$unit]-}" ] || { to_reload[$unit]=1; record reload "$unit"; } ;;
        esac
    fi
done

shown() { # ARRAY: its names that are shown to people
    local -n names=$1
    local unit
    for unit in "${!names[@]}"; do [ -n "${hidden[$unit]-}" ] || echo "$unit"; done | sort
}
tell() { # TEXT NAMES: the line, if there is anything to name
    [ -z "$2" ] || say "$1 $(listed $2)"
}
by_activation() { # PREFIX: the wishes of activation scripts
    local unit
    [ ! -e $lists/"$1"-restart-list ] || while IFS= read -r unit; do
        if [ -z "${active[$unit]-}" ]; then to_start[$unit]=1; record start "$unit"; continue; fi
        to_restart[$unit]=1
        record restart "$unit"
    done < $lists/"$1"-restart-list
    [ ! -e $lists/"$1"-reload-list ] || while IFS= read -r unit; do
        if [ -n "${active[$unit]-}" ] && [ -z "${to_restart[$unit]-}${to_stop[$unit]-}" ]; then to_reload[$unit]=1; record reload "$unit"; fi
    done < $lists/"$1"-reload-list
    rm -f $lists/"$1"-restart-list $lists/"$1"-reload-list
}

# systemd itself.
manager_changed=
[ "$(readlink -f /etc/systemd/system.conf)" = "$(readlink -f "$out/etc/systemd/system.conf")" ] || manager_changed=1

if [ "$action" = dry-activate ]; then
    tell "would stop the following units:" "$(shown to_stop)"
    tell "would NOT stop the following changed units:" "$(shown to_skip)"
    say "would activate the configuration..."
    "$out/dry-activate" "$out"
    by_activation dry-activation
    [ -z "$manager_changed" ] || say "would restart systemd"
    tell "would reload the following units:" "$(shown to_reload)"
    tell "would restart the following units:" "$(shown to_restart)"
    tell "would start the following units:" "$(shown to_start)"
    exit 0
fi

log() { logger --tag nixos --priority "user.$1" "$2" 2> /dev/null; }
log notice "switching to system configuration $out"
if [ ${#to_stop[@]} -gt 0 ]; then
    tell "stopping the following units:" "$(shown to_stop)"
    systemctl stop -- "${!to_stop[@]}"
fi
tell "NOT restarting the following changed units:" "$(shown to_skip)"
say "activating the configuration..."
"$out/activate" "$out" || status=2
by_activation activation
if [ -n "$manager_changed" ]; then
    say "restarting systemd..."
    systemctl daemon-reexec || status=2
fi
systemctl reset-failed
systemctl daemon-reload || status=3
say "restarting sysinit-reactivation.target"
systemctl restart sysinit-reactivation.target || status=4

# A unit to reload may have been stopped together with a unit that it requires. Then it is started.
for unit in "${!to_reload[@]}"; do
    systemctl is-active --quiet -- "$unit" && continue
    if may_be_started "$unit"; then
        to_start[$unit]=1
        record start "$unit"
    fi
    forget_reload "$unit"
done
if [ ${#to_reload[@]} -gt 0 ]; then
    tell "reloading the following units:" "$(shown to_reload)"
    systemctl reload -- "${!to_reload[@]}" || status=4
    rm -f $lists/reload-list
fi
if [ ${#to_restart[@]} -gt 0 ]; then
    tell "restarting the following units:" "$(shown to_restart)"
    systemctl restart -- "${!to_restart[@]}" || status=4
    rm -f $lists/restart-list
fi
tell "starting the following units:" "$(shown to_start)"
[ ${#to_start[@]} -eq 0 ] || systemctl start -- "${!to_start[@]}" || status=4
rm -f $lists/start-list

# The units that failed at once, for any reason.
sleep 0.25
started=() failed=()
while read -r unit state substate; do
    if [ "$state" = failed ]; then
        failed+=("$unit")
    elif [ "$substate" = auto-restart ] && [ "$(systemctl show --value --property=ExecMainStatus "$unit")" != 0 ]; then
        failed+=("$unit")
    elif [ -z "${active[$unit]-}" ] && [[ $unit != *.scope ]]; then
        started+=("$unit")
    fi
done < <(active_units)
tell "the following new units were started:" "${started[*]-}"
if [ ${#failed[@]} -gt 0 ]; then
    say "warning: the following units failed: $(listed "${failed[@]}")"
    systemctl status --no-pager --full "${failed[@]}" >&2
    status=4
fi
if [ $status = 0 ]; then
    log notice "finished switching to system configuration $out"
else
    log err "switching to system configuration $out failed (status $status)"
fi
exit $status
