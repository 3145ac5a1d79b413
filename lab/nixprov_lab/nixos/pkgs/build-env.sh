# Links the files of $paths below $pathsToLink into $out. Of two with the same name the first stays.
mkdir -p "$out"
for _path in $paths; do
    for _folder in $pathsToLink; do
        [ -d "$_path$_folder" ] || continue
        (cd "$_path$_folder" && find -L . -type d -printf '%P\0' 2>/dev/null) |
            while IFS= read -r -d '' _dir; do mkdir -p "$out$_folder/$_dir"; done
        (cd "$_path$_folder" && find -L . ! -type d -printf '%P\0' 2>/dev/null) |
            while IFS= read -r -d '' _file; do
                _link=$out$_folder/$_file
                if [ ! -L "$_link" ]; then
                    ln -s "$_path$_folder/$_file" "$_link"
                elif [ "$(readlink -f "$_link")" = "$(readlink -f "$_path$_folder/$_file")" ]; then
                    :
                elif [ -n "$ignoreCollisions" ]; then
                    echo "warning: collision between \`$_path$_folder/$_file' and \`$(readlink "$_link")'" >&2
                else
                    echo "error: collision between \`$_path$_folder/$_file' and \`$(readlink "$_link")'" >&2
                    exit 25
                fi
            done
    done
done
