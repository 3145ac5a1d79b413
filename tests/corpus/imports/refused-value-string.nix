{ ... }:
{
  imports = "x";
}
