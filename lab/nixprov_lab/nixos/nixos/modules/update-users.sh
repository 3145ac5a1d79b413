# update-users.sh LIST MUTABLE: makes /etc/passwd, /etc/group and /etc/shadow agree with LIST.
# Numbers once given are kept in /var/lib/nixos/{uid,gid}-map. Users and groups that are no longer declared are removed.
set -euo pipefail
list=$1 mutable=$2
state=/var/lib/nixos
dry() { [ "${NIXOS_ACTION-}" = dry-activate ]; }
dry || mkdir -p "$state"

declare -A gid_of=() old_gid=() old_uid=() old_groups=() old_users=() gid_map=() uid_map=() gids_in_use=() uids_in_use=() hash_of=() shell_line=()
read_pairs() { # FILE ARRAY: NAME NUMBER a line
    local -n pairs=$2
    [ -e "$1" ] || return 0
    while read -r name number; do pairs[$name]=$number; done < "$1"
}
read_words() {
    local -n words=$2
    [ -e "$1" ] || return 0
    for word in $(cat "$1"); do words[$word]=1; done
}
read_pairs "$state/gid-map" gid_map
read_pairs "$state/uid-map" uid_map
read_words "$state/declarative-groups" old_groups
read_words "$state/declarative-users" old_users

declare -A present_members=()
while IFS=: read -r name _ gid members; do
    old_gid[$name]=$gid present_members[$name]=$members gids_in_use[$gid]=1
done < /etc/group
while IFS=: read -r name _ uid _; do
    old_uid[$name]=$uid uids_in_use[$uid]=1
done < /etc/passwd
while IFS=: read -r name rest; do shell_line[$name]=$rest; done < /etc/shadow
for number in "${gid_map[@]}"; do gids_in_use[$number]=1; done
for number in "${uid_map[@]}"; do uids_in_use[$number]=1; done

free() { # FIRST LAST STEP IN_USE: sets `number`
    local -n in_use=$4
    for ((number = $1; number != $2 + $3; number += $3)); do
        [ -n "${in_use[$number]-}" ] || { in_use[$number]=1; return 0; }
    done
    echo "no free number between $1 and $2" >&2
    return 1
}
unique() { # sorted names, each once
    if [[ $1 == *,* ]]; then tr , '\n' <<< "$1" | sed '/^$/d' | sort -u | paste -sd, -; else echo "$1"; fi
}

new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

# Groups.
declare -A declared_groups=()
: > "$new/group"
while IFS=$'\t' read -r kind name gid members; do
    [ "$kind" = group ] || continue
    [ "$members" != - ] || members=
    declared_groups[$name]=1
    if [ "$gid" = - ]; then
        gid=${old_gid[$name]-${gid_map[$name]-}}
        [ -n "$gid" ] || { free 999 400 -1 gids_in_use; gid=$number; }
    elif [ -n "${old_gid[$name]-}" ] && [ "${old_gid[$name]}" != "$gid" ]; then
        echo "warning: not applying GID change of group ‘$name’ (${old_gid[$name]} -> $gid) in /etc/group" >&2
        gid=${old_gid[$name]}
    fi
    # Members added by hand to a group that is not ours alone stay.
    if [ "$mutable" = true ] && [ -z "${old_groups[$name]-}" ]; then members+=,${present_members[$name]-}; fi
    gid_of[$name]=$gid gid_map[$name]=$gid
    echo "$name:x:$gid:$(unique "$members")" >> "$new/group"
done < "$list"
while IFS=: read -r name rest; do
    [ -z "${declared_groups[$name]-}" ] || continue
    if [ "$mutable" != true ] || [ -n "${old_groups[$name]-}" ]; then
        if dry; then echo "would remove group ‘$name’" >&2; else echo "removing group ‘$name’" >&2; fi
        continue
    fi
    gid_of[$name]=${rest#*:} gid_of[$name]=${gid_of[$name]%%:*}
    echo "$name:$rest" >> "$new/group"
done < /etc/group

# Users.
declare -A declared_users=()
: > "$new/passwd"
while IFS=$'\t' read -r kind name uid group home shell description system create_home mode hash initial hash_file; do
    [ "$kind" = user ] || continue
    [ "$description" != - ] || description=
    declared_users[$name]=1
    if [ "$uid" = - ]; then
        uid=${old_uid[$name]-${uid_map[$name]-}}
        if [ -z "$uid" ]; then
            if [ "$system" = true ]; then free 999 400 -1 uids_in_use; else free 1000 29999 1 uids_in_use; fi
            uid=$number
        fi
    elif [ -n "${old_uid[$name]-}" ] && [ "${old_uid[$name]}" != "$uid" ]; then
        echo "warning: not applying UID change of user ‘$name’ (${old_uid[$name]} -> $uid) in /etc/passwd" >&2
        uid=${old_uid[$name]}
    fi
    gid=${gid_of[$group]-}
    if [ -z "$gid" ]; then
        echo "warning: user ‘$name’ has unknown group ‘$group’" >&2
        gid=65534
    fi
    uid_map[$name]=$uid
    echo "$name:x:$uid:$gid:$description:$home:$shell" >> "$new/passwd"
    if [ "$hash_file" != - ] && [ -r "$hash_file" ]; then hash=$(head -n1 "$hash_file"); fi
    if [ -n "${shell_line[$name]-}" ]; then
        hash_of[$name]=${shell_line[$name]%%:*}
        if [ "$hash" != - ]; then hash_of[$name]=$hash; fi
    elif [ "$hash" != - ]; then
        hash_of[$name]=$hash
    elif [ "$initial" != - ]; then
        hash_of[$name]=$initial
    else
        hash_of[$name]='!'
    fi
    if [ "$create_home" = true ] && [ ! -e "$home" ] && ! dry; then
        install -d -m "$mode" "$home"
        chown "$uid:$gid" "$home"
    fi
done < "$list"
while IFS=: read -r name rest; do
    [ -z "${declared_users[$name]-}" ] || continue
    if [ "$mutable" != true ] || [ -n "${old_users[$name]-}" ]; then
        if dry; then echo "would remove user ‘$name’" >&2; else echo "removing user ‘$name’" >&2; fi
        continue
    fi
    echo "$name:$rest" >> "$new/passwd"
done < /etc/passwd
while IFS=: read -r name _; do
    if [ -n "${declared_users[$name]-}" ]; then
        rest=${shell_line[$name]-}
        if [[ $rest == *:* ]]; then rest=${rest#*:}; else rest=1::::::; fi
        echo "$name:${hash_of[$name]}:$rest"
    else
        echo "$name:${shell_line[$name]-!:1::::::}"
    fi
done < "$new/passwd" > "$new/shadow"
! dry || exit 0

put() { # NAME MODE GROUP: renamed over the old file, so that no reader gets half of it
    if ! cmp -s "$new/$1" "/etc/$1"; then
        cp "$new/$1" "/etc/$1.new"
        chmod "$2" "/etc/$1.new"
        chown "0:$3" "/etc/$1.new"
        mv "/etc/$1.new" "/etc/$1"
    fi
}
umask 077
write() { cat > "$state/$1.new" && mv "$state/$1.new" "$state/$1"; }
# The declared names are recorded before they are made, as in NixOS. So a power loss in between leaves no user for ever.
echo "${!declared_groups[*]}" | write declarative-groups
for name in "${!gid_map[@]}"; do echo "$name ${gid_map[$name]}"; done | sort | write gid-map
put group 0644 0
echo "${!declared_users[*]}" | write declarative-users
for name in "${!uid_map[@]}"; do echo "$name ${uid_map[$name]}"; done | sort | write uid-map
put passwd 0644 0
put shadow 0640 "${gid_of[shadow]-0}"
chmod 0755 "$state"
