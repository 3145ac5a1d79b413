{ lib, ... }:
{
  imports = let dir = ./modules; in [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ] /* nixprov */ ++ map (n: dir + "/${n}") [ "a" ];
}
