{ lib, ... }:
{
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ] /* nixprov */ ++ (if true then [ ./a.nix ] else [ ]);
}
