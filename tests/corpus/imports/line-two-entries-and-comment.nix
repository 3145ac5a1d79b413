{ ... }:
{
  imports = [ ./a.nix ./b.nix /* both */ ]; # keep
}
