{ config, pkgs, lib, modulesPath, ... }:
{
  imports = [
    (modulesPath + "/installer/scan/not-detected.nix")
    "${builtins.toString ./.}/x.nix"
    ./with-${"interpolation"}.nix
    /etc/other.nix
    { networking.hostName = "a ] b"; imports = [ ./inner.nix ]; }
    ({ ... }: { imports = [ ./inner2.nix ]; })
    (lib.mkIf true { a = [ ]; })
    (import ./generated.nix {
      deep = [ 1 2 ];
    })
    (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) # nixprov: added by "nixprov up", removed by "nixprov down"
  ];
}
