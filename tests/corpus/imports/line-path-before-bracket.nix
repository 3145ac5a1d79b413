{ ... }:
{
  imports = [ ./a.nix ./b];
}
