{ ... }:
let
  modules = [ ./a.nix ];
in
{
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ] /* nixprov */ ++ modules;
}
