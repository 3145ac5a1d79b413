#!@shell@
case ${1-} in
'') echo "@version@ (@codeName@)" ;;
--json) printf '{"configurationRevision":"%s","nixosVersion":"%s"}\n' '@revision@' '@version@' ;;
--hash | --revision) echo "$0: Nixpkgs commit hash is unknown" >&2; exit 1 ;;
--configuration-revision)
    [ -n '@revision@' ] || { echo "$0: configuration revision is unknown" >&2; exit 1; }
    echo '@revision@'
    ;;
*) echo "nixos-version: unknown option '$1'" >&2; exit 1 ;;
esac
