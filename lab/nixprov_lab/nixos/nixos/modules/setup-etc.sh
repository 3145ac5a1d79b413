# setup-etc.sh ETC: makes /etc/static point to ETC, and puts ETC's entries into /etc. Removes our entries that are not in
# ETC any more. A file with a mode is copied, and recorded in /etc/.clean so that it can be removed later.
set -u
etc=$1
status=0
note() { echo "$*" >&2; status=1; }

replace_link() { # TARGET LINK
    rm -f "$2.tmp"
    ln -s "$1" "$2.tmp" && mv -T "$2.tmp" "$2" || note "could not create symlink $2"
}

old=$(readlink /etc/static || true)
replace_link "$etc" /etc/static

# Links into the old tree without their file.
if [ -n "$old" ] && [ "$old" != "$etc" ] && [ -d "$old" ]; then
    find "$old" -mindepth 1 \( -type l -o -type f \) ! -name '*.mode' ! -name '*.uid' ! -name '*.gid' -printf '%P\n' |
        while IFS= read -r name; do
            [ ! -e "$etc/$name" ] && [ ! -L "$etc/$name" ] || continue
            case $(readlink "/etc/$name" 2>/dev/null) in
            /etc/static/*)
                echo "removing obsolete symlink ‘/etc/$name’..." >&2
                rm -f "/etc/$name"
                ;;
            esac
        done
fi

declare -A link=()
while IFS=$'\t' read -r name target; do link[$name]=$target; done < <(find /etc -xdev -type l -printf '%P\t%l\n')

created=$(mktemp)
trap 'rm -f "$created"' EXIT
while IFS= read -r name; do
    target=/etc/$name
    case $name in *.mode | *.uid | *.gid) [ -L "$etc/$name" ] || continue ;; esac
    [ -d "${target%/*}" ] || mkdir -p "${target%/*}"
    if [ -e "$etc/$name.mode" ]; then
        mode=$(< "$etc/$name.mode")
        if [ "$mode" = direct-symlink ]; then
            replace_link "$(readlink "$etc/$name")" "$target"
            continue
        fi
        user=$(< "$etc/$name.uid") group=$(< "$etc/$name.gid")
        cp -L "$etc/$name" "$target.tmp" && chown "${user#+}:${group#+}" "$target.tmp" &&
            chmod "$mode" "$target.tmp" && mv -T "$target.tmp" "$target" || note "could not copy $target"
        echo "$name" >> "$created"
    elif [ -d "$target" ] && [ ! -L "$target" ]; then
        # A directory in the place of a link may go if it is empty.
        rmdir "$target" 2>/dev/null || { note "$target directory contains user files. Symlinking may fail."; continue; }
        replace_link "/etc/static/$name" "$target"
    elif [ "${link[$name]-}" != "/etc/static/$name" ]; then
        replace_link "/etc/static/$name" "$target"
    fi
done < <(find "$etc" -mindepth 1 \( -type l -o -type f \) -printf '%P\n')

# Copies of earlier generations.
if [ -e /etc/.clean ]; then
    while IFS= read -r name; do
        grep -qxF "$name" "$created" || [ -L "/etc/$name" ] || { echo "removing obsolete file ‘/etc/$name’..." >&2; rm -f "/etc/$name"; }
    done < /etc/.clean
fi
sort -u "$created" > /etc/.clean
touch /etc/NIXOS
exit $status
