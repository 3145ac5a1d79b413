{ ... }:
let
  imports = [ ./not-the-module.nix ];
in
{
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ]; # nixprov: added by "nixprov up", removed by "nixprov down"
  a = builtins.length imports;
}
