{ ... }:
{
  imports = [ ./nixprov ];
}
