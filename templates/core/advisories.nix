# Known flaws of the Nix that runs the jobs' daemon. A way to root stops the evaluation, unless it is accepted.
# The check is here too, not in `up` alone, because a later nixos-rebuild may bring an older Nix.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;
  nix = config.nix.package or pkgs.nix;
  name = "${lib.getName nix} ${lib.getVersion nix}";

  inherit (builtins.fromTOML (builtins.readFile ./advisories.toml)) advisory;
  known = map (one: one.id) advisory;
  found = import ./affected.nix {
    advisories = advisory;
    product = lib.getName nix;
    version = lib.getVersion nix;
  };

  ids = list: lib.concatStringsSep ", " (map (one: one.id) list);
  mend = lib.optionalString (found.mended != "") "; ${found.mended} mends it";
  accepted = lib.partition (one: lib.elem one.id cfg.acceptedAdvisories) found.root;
  unknown = lib.filter (id: !(lib.elem id known)) cfg.acceptedAdvisories;
in
{
  # A trusted job needs no flaw to become root of the host; door.nix warns of that.
  config = lib.mkIf (cfg.trust == "none") {
    assertions = [
      {
        assertion = unknown == [ ];
        message = "nixprov: acceptedAdvisories names what is no advisory: ${lib.concatStringsSep ", " unknown}; there are ${ids advisory}";
      }
      {
        assertion = found == null || accepted.wrong == [ ];
        message = "nixprov: ${name} lets jobs become root of this host: ${ids accepted.wrong}${mend}; set nix.package, or accept them by name (services.nixprov.acceptedAdvisories, in the inventory nixprov_accept_advisories)";
      }
    ];
    warnings =
      if found == null then
        [ "nixprov: ${name}: its advisories are not known to nixprov, and were not looked at" ]
      else
        lib.optional (accepted.right != [ ]) "nixprov: ${name} lets jobs become root of this host, and this is accepted: ${ids accepted.right}${mend}"
        ++ lib.optional (found.less != [ ]) "nixprov: ${name} has flaws that give jobs less than root: ${ids found.less}";
  };
}
