{ ... }:
{
  imports.a = 1;
}
