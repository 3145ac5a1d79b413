{ ... }:
{
  imports = [ ./a.nix ]
  a = 1;
}
