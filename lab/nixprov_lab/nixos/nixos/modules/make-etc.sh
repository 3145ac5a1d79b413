# Puts every entry below $out/etc. A file with a mode has .mode, .uid and .gid files beside it.
mkdir -p "$out/etc"
while IFS=$'\t' read -r source target mode user group; do
    file=$out/etc/$target
    mkdir -p "$(dirname "$file")"
    if [[ $source == *'*'* ]]; then
        mkdir -p "$file"
        for one in $source; do ln -s "$one" "$file/"; done
        continue
    fi
    if [ -e "$file" ] || [ -L "$file" ]; then
        if [ "$(readlink "$file")" != "$source" ]; then
            echo "mismatched duplicate entry $(readlink "$file") <-> $source" >&2
            exit 1
        fi
        continue
    fi
    ln -s "$source" "$file"
    if [ "$mode" != symlink ]; then
        echo "$mode" > "$file.mode"
        echo "$user" > "$file.uid"
        echo "$group" > "$file.gid"
    fi
done < "$entriesPath"
