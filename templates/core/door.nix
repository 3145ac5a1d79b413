# The socket that jobs get for Nix: the filter's, or the host's own daemon's when jobs are declared trusted.
{ config, lib, ... }:

let
  cfg = config.services.nixprov;
  internal = import ./internal.nix { inherit lib; };
  isPlain = cfg.trust == "plain";
in
{
  options.services.nixprov.door =
    internal (lib.types.attrsOf lib.types.str)
      (
        if isPlain then
          {
            unit = "nix-daemon.socket";
            service = "nix-daemon.service";
            folder = "/nix/var/nix/daemon-socket";
          }
        else
          {
            # A switch does not restart a socket that changed (NixOS/nixpkgs#74899). So another value is another unit.
            unit = if cfg.shareSocket then "nixprov-nix-shared.socket" else "nixprov-nix-jobs.socket";
            service = "nixprov-nix-filter.service";
            folder = "/run/nixprov/jobs/nix";
          }
      )
      "The unit of the socket, who answers there, and the socket's folder, which is mounted into containers.";

  config = lib.mkIf isPlain {
    # Read by `status`, which reports the trust as long as it lasts.
    environment.etc."nixprov-trust".text = cfg.trust;
    warnings = [ "nixprov: trust is plain: root in a job's container is root of this host" ];
  };
}
