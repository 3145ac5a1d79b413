# git. It finds its own parts by the environment, since Debian's git has /usr built in.
set -eu
parts=$out/libexec/git-core
mkdir -p "$out/bin" "$parts" "$out/share"
cp -R /usr/share/git-core "$out/share/"
cp -P /usr/lib/git-core/* "$parts/" 2>/dev/null || true
rm -f "$parts/git"
cp -L /usr/bin/git "$parts/git"
for part in "$parts"/*; do
    [ -f "$part" ] && [ ! -L "$part" ] || continue
    case $(head -c 20 "$part" | tr -d '\0') in
    '#!/bin/sh'*) sed -i "1s,.*,#!$shell/bin/sh," "$part" ;;
    '#!'*) rm "$part" ;; # Perl
    *ELF*) "$python" "$relocate" "$part" "$libraries/lib/loader" "$libraries/lib" ;;
    esac
done
for part in "$parts"/*; do
    [ ! -L "$part" ] || [ "$(basename "$(readlink "$part")")" != git ] || ln -sfn git "$part"
done
for name in git git-upload-pack git-receive-pack git-upload-archive git-shell; do
    cat > "$out/bin/$name" << END
#!$shell/bin/sh
export GIT_EXEC_PATH=\${GIT_EXEC_PATH-$parts} GIT_TEMPLATE_DIR=\${GIT_TEMPLATE_DIR-$out/share/git-core/templates}
exec $parts/$name "\$@"
END
    chmod 0755 "$out/bin/$name"
done
