{ lib, ... }:
{
  imports = [ ./a.nix (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) /* nixprov */ ] ++ [ ./b.nix ] ++ (if true then [ ./c.nix ] else [ ]);
}
