{ ... }:
{
  imports = [ ./nixprov/default.nix ];
}
