{ lib, ... }:
let set = { }; in
{
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ] /* nixprov */ ++ set.modules or [ ./a.nix ];
}
